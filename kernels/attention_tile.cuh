// Attention's tiles on tensor cores: how rows lie in shared memory, and a warp's products.
//
// A warp owns GROUPS groups of 16 rows, whose 16 numbers of a product make one left factor.  Each
// tile of other rows that it reads is a right factor for all of its groups.  Its scores are sums of
// its own products and stay in its registers: rounded to 16 bits they are the left factor of the
// next product.  Sums are in float.
//
// A row has D numbers, in chunks of 8, 16 bytes.  `place` moves the chunks of a row by the row's
// number.  So eight rows of one chunk, which ldmatrix reads at once, and eight chunks of one row,
// which copies write at once, are in different banks, and there is no gap after a row.
#include "dtype.cuh"
#include "fast.cuh"
#include "reduce.cuh"
#include "mma.cuh"
#ifndef D
#define D 64  // features of a head: 32, 64, 80 or 128
#endif
#ifndef SMALL
#define SMALL 0  // 1: small blocks, for few rows
#endif
// For sm_100 and sm_120 the compiler needs a few registers more for the same text.
#ifdef __CUDA_ARCH__
#define ARCHITECTURE __CUDA_ARCH__
#else
#define ARCHITECTURE 0  // the emulator, and the first pass of a compiler
#endif
#define KEYS 64  // rows of a tile of keys; a tile of max_end and min_end
#define CHUNKS (D / 8)
#define ROW_BYTES (2 * D)

// Whether some of so many rows may see some key from `first_key` on, whose largest end is max_end.
__device__ __forceinline__ bool some_visible(int first_key, int max_end, int first_row, int rows) {
    return first_key < first_row + rows && max_end > first_row;  // (8.21)
}

// Whether all of so many rows see all of so many keys.
__device__ __forceinline__ bool all_visible(int first_key, int keys, int min_end, int first_row,
                                            int rows) {
    return first_key + keys - 1 <= first_row && first_row + rows <= min_end;  // (8.22)
}

// The byte at which a chunk of a row begins.
__device__ __forceinline__ int place(int row, int chunk) {
    if (D == 80) return row * ROW_BYTES + ((chunk ^ (row >> 2 & 1)) << 4);
    if (D == 32) return row * ROW_BYTES + ((chunk ^ (row >> 1 & 3)) << 4);
    return row * ROW_BYTES + ((chunk ^ (row & 7)) << 4);
}

// From a lane's address in chunks 0 and 1 to that in `chunk` and the next; `chunk` is even.
__device__ __forceinline__ shared_address along(shared_address a, int chunk) {
    return D == 80 ? a + 16 * chunk : flipped(a, 16 * chunk);
}

// The row whose address a lane passes to ldmatrix: of a left factor, which is also that of a
// transposed right one, and of a right factor.
__device__ __forceinline__ int left_lane() {
    return place(threadIdx.x % 16, threadIdx.x % 32 / 16);
}
__device__ __forceinline__ int right_lane() {
    return place(threadIdx.x % 32 / 16 * 8 + threadIdx.x % 8, threadIdx.x % 32 / 8 % 2);
}

// Send copies of COUNT rows of x to shared memory, from row `first` on; 0 after the last row.
// Offsets have 32 bits: N · 3 · C < 2³².
template <int COUNT, int THREADS>
__device__ __forceinline__ void copy_rows(shared_address to, const real* x, unsigned stride,
                                          int first, int N) {
    if (THREADS % CHUNKS == 0) {  // each thread has one chunk of some rows
        constexpr int STEP = THREADS % CHUNKS == 0 ? THREADS / CHUNKS : 1;
        const int c = threadIdx.x % CHUNKS, r = threadIdx.x / CHUNKS;
        const unsigned from = (unsigned)(first + r) * stride + 8 * c;
#pragma unroll
        for (int i = 0; i < COUNT; i += STEP)
            if (COUNT % STEP == 0 || r + i < COUNT)
                copy_async<16>(to + place(r + i, c), x + (size_t)(from + i * stride),
                               first + r + i < N);
    } else {
#pragma unroll
        for (int e = threadIdx.x; e < COUNT * CHUNKS; e += THREADS) {
            const int r = e / CHUNKS, c = e % CHUNKS;
            copy_async<16>(to + place(r, c), x + (size_t)((unsigned)(first + r) * stride + 8 * c),
                           first + r < N);
        }
    }
}

// The same for COUNT numbers of 4 bytes.
template <int COUNT, int THREADS, typename T>
__device__ __forceinline__ void copy_numbers(shared_address to, const T* x, int first, int N) {
#pragma unroll
    for (int i = 0; i < COUNT; i += THREADS) {
        const int mine = i + (int)threadIdx.x;
        if (COUNT - i >= THREADS || mine < COUNT)
            copy_async<4>(to + 4 * mine, x + first + mine, first + mine < N);
    }
}

// A warp's own rows as left factors: kept in registers, or read again for each product.
template <int GROUPS, bool KEEP> struct OwnRows {
    shared_address at;
    unsigned of[KEEP ? D / 16 : 1][GROUPS][4];

    __device__ __forceinline__ void read(int k) {
#pragma unroll
        for (int m = 0; m < GROUPS; m++)
            ldmatrix_x4(of[KEEP ? k : 0][m], along(at, 2 * k) + m * 16 * ROW_BYTES);
    }
    __device__ __forceinline__ void begin(shared_address rows) {
        at = rows + left_lane();
#pragma unroll
        for (int k = 0; KEEP && k < D / 16; k++) read(k);
    }
};

template <int GROUPS, int COLUMNS>
__device__ __forceinline__ void clear(float (&s)[GROUPS][COLUMNS][4]) {
#pragma unroll
    for (int m = 0; m < GROUPS; m++)
#pragma unroll
        for (int n = 0; n < COLUMNS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) s[m][n][i] = 0.f;
}

// s (16·GROUPS, K) += the warp's own rows times K rows from `tile` on.
template <int GROUPS, int K, bool KEEP>
__device__ __forceinline__ void inner(float (&s)[GROUPS][K / 8][4], OwnRows<GROUPS, KEEP>& own,
                                      shared_address tile) {
    tile += right_lane();
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        if (!KEEP) own.read(k);
        const shared_address here = along(tile, 2 * k);
#pragma unroll
        for (int n = 0; n < K / 16; n++) {
            unsigned b[4];
            ldmatrix_x4(b, here + n * 16 * ROW_BYTES);
#pragma unroll
            for (int m = 0; m < GROUPS; m++) {
                mma_m16n8k16(s[m][2 * n], own.of[KEEP ? k : 0][m], b[0], b[1], real());
                mma_m16n8k16(s[m][2 * n + 1], own.of[KEEP ? k : 0][m], b[2], b[3], real());
            }
        }
    }
}

// sum (16·GROUPS, D) += a (16·GROUPS, 16), a left factor, times 16 rows, from row `first` of a tile
// on; `tile` is the lane's address.
template <int GROUPS>
__device__ __forceinline__ void add_product(float (&sum)[GROUPS][D / 8][4],
                                            const unsigned (&a)[GROUPS][4], shared_address tile,
                                            int first) {
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
        unsigned b[4];
        ldmatrix_x4_trans(b, along(tile, 2 * n) + first * ROW_BYTES);
#pragma unroll
        for (int m = 0; m < GROUPS; m++) {
            mma_m16n8k16(sum[m][2 * n], a[m], b[0], b[1], real());
            mma_m16n8k16(sum[m][2 * n + 1], a[m], b[2], b[3], real());
        }
    }
}

// sum (16·GROUPS, D) += p (16·GROUPS, K), rounded, times K rows from `tile` on.
template <int GROUPS, int K>
__device__ __forceinline__ void weigh(float (&sum)[GROUPS][D / 8][4],
                                      const float (&p)[GROUPS][K / 8][4], shared_address tile) {
    tile += left_lane();
#pragma unroll
    for (int k = 0; k < K / 16; k++) {
        unsigned a[GROUPS][4];
#pragma unroll
        for (int m = 0; m < GROUPS; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float(&pair)[4] = p[m][2 * k + i / 2];
                a[m][i] = packed(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
            }
        add_product<GROUPS>(sum, a, tile, 16 * k);
    }
}

// The warp's rows, each times its factor, to x from row `first` on.  They pass through shared
// memory of the warp's own, so that a warp writes whole rows.
template <int GROUPS>
__device__ __forceinline__ void write_rows(real* x, size_t stride,
                                           const float (&sum)[GROUPS][D / 8][4],
                                           const float (&factor)[GROUPS][2], unsigned char* own,
                                           int first, int N) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < GROUPS; m++)
#pragma unroll
        for (int c = 0; c < D / 8; c++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float left = sum[m][c][2 * half], right = sum[m][c][2 * half + 1];
                *(unsigned*)(own + place(16 * m + 8 * half + g, c) + 4 * t) =
                    packed(left * factor[m][half], right * factor[m][half]);
            }
    __syncwarp();
#pragma unroll
    for (int e = lane; e < 16 * GROUPS * CHUNKS; e += 32) {
        const int r = e / CHUNKS, c = e % CHUNKS;
        uint4* to = (uint4*)(x + (size_t)(first + r) * stride + 8 * c);
        if (first + r < N) *to = *(const uint4*)(own + place(r, c));
    }
}
