// Attention's tiles without tensor cores: which rows a thread owns, and its products with others.
//
// A block owns B rows, and a thread OWN_ROWS of them: the three kernels compute scores of own rows
// with M met ones, then weighted sums over the met rows.  Eight threads share their own rows: of a
// tile of scores each has every eighth column, of a sum an eighth of the features.
// In a clock a multiprocessor does 128 products, but reads 32 numbers of shared memory.  So a
// number that is read should serve in four products.  For D = 64 and 8 own rows it does so in the
// sums (8 features and 8 weights for 64 products), and in the scores for M = 64.  Four blocks fit
// on a multiprocessor of sm_90, and a thread may have all of its 255 registers.  For D > 64 the
// sums are wider, and B is 32.
// Scores become weights of the sum STEP columns at a time, through shared memory.  A warp reads
// only weights that it wrote itself, so there its threads wait for no other warp.
// In float, copies go on while a block computes: of the next pair of tiles each is copied as soon
// as the last one is no longer needed.  Numbers of 16 bits are converted on their way.
// Rows of met tiles are 4 numbers longer than D, and rows of weights than B, so that the eight that
// a quarter of a warp reads or writes at once begin 4 banks apart and together use each bank once.
// Where a row's length is not a multiple of eight lanes (D = 80), the gap after it moves the next
// row onto banks in use: filling a tile takes 1.2 times the passes that it needs, which are a tenth
// of all passes at most.
#include "dtype.cuh"
#include "fast.cuh"
#include "reduce.cuh"
#include "copy_async.cuh"
#ifndef D
#define D 64  // features of a head: 32, 64, 80 or 128
#endif
#define B (D <= 64 ? 64 : 32)  // own rows of a block
#define THREADS 64
#define TX 8                   // threads side by side, which share their own rows
#define OWN_ROWS (B * TX / THREADS)
#define OWN (D / TX)           // features that a thread owns
#define STEP 16                // columns of scores that are in shared memory at once

struct Rows {
    float row[B][D];
};
template <int M> struct Tile {
    float row[M][D + 4];
};
struct Weights {
    float row[STEP][B + 4];  // transposed: own rows side by side
};

// A thread owns features in pairs or fours of neighbours: its number j is this feature.
#define WIDE (OWN % 4 == 0 ? 4 : 2)
__device__ __forceinline__ int feature(int j, int tx) {
    return j / WIDE * (TX * WIDE) + tx * WIDE + j % WIDE;
}

// Send copies of some rows of x, from row `first` on, with `stride` numbers from row to row; 0
// after the last row.  Offsets have 32 bits: N · 3 · C < 2³².
template <int COUNT, int LENGTH>
__device__ __forceinline__ void copy_rows(float (&to)[COUNT][LENGTH], const real* x,
                                          unsigned stride, int first, int N) {
#pragma unroll
    for (int i = 0; i < COUNT * D / 4; i += THREADS) {
        const unsigned e = i + threadIdx.x, r = e / (D / 4), c = e % (D / 4) * 4;
        const real* from = x + (size_t)((first + r) * stride + c);
        const bool exists = first + (int)r < N;
        if (sizeof(real) == 4) {
            copy_async<16>(address_of(&to[r][c]), from, exists);
        } else {
            const float4 none = make_float4(0.f, 0.f, 0.f, 0.f);
            *(float4*)&to[r][c] = exists ? load4(from) : none;
        }
    }
}

// The same of M numbers.
template <int M, typename T>
__device__ __forceinline__ void copy_numbers(T (&to)[M], const T* x, int first, int N) {
    const int mine = threadIdx.x;
    if (mine < M) copy_async<4>(address_of(&to[mine]), x + first + mine, first + mine < N);
}

// s[i][j] = x[OWN_ROWS ty + i] · y[tx + TX j], with FOURS times 4 features in a pass of the loop
template <int FOURS, int M>
__device__ __forceinline__ void inner(float (&s)[OWN_ROWS][M / TX], const Rows& x,
                                      const Tile<M>& y, int ty, int tx) {
#pragma unroll
    for (int i = 0; i < OWN_ROWS; i++)
#pragma unroll
        for (int j = 0; j < M / TX; j++) s[i][j] = 0.f;
#pragma unroll FOURS
    for (int c = 0; c < D; c += 4) {
        float4 b[M / TX];
#pragma unroll
        for (int j = 0; j < M / TX; j++) b[j] = *(const float4*)&y.row[tx + TX * j][c];
#pragma unroll
        for (int i = 0; i < OWN_ROWS; i++) {
            const float4 a = *(const float4*)&x.row[OWN_ROWS * ty + i][c];
#pragma unroll
            for (int j = 0; j < M / TX; j++) {
                s[i][j] = fmaf(a.x, b[j].x, s[i][j]);
                s[i][j] = fmaf(a.y, b[j].y, s[i][j]);
                s[i][j] = fmaf(a.z, b[j].z, s[i][j]);
                s[i][j] = fmaf(a.w, b[j].w, s[i][j]);
            }
        }
    }
}

// sum[i][j] += Σ_k s(own row i, met row k) · y[k][feature j]
template <int M>
__device__ __forceinline__ void weigh(float (&sum)[OWN_ROWS][OWN],
                                      const float (&s)[OWN_ROWS][M / TX], Weights& weights,
                                      const Tile<M>& y, int ty, int tx) {
#pragma unroll
    for (int k = 0; k < M; k += STEP) {
#pragma unroll
        for (int j = 0; j < STEP / TX; j++)
#pragma unroll
            for (int i = 0; i < OWN_ROWS; i += 4) {
                const int n = k / TX + j;
                *(float4*)&weights.row[tx + TX * j][OWN_ROWS * ty + i] =
                    make_float4(s[i][n], s[i + 1][n], s[i + 2][n], s[i + 3][n]);
            }
        __syncwarp();
#pragma unroll 4
        for (int c = 0; c < STEP; c++) {
            float p[OWN_ROWS];
#pragma unroll
            for (int i = 0; i < OWN_ROWS; i += 4)
                *(float4*)&p[i] = *(const float4*)&weights.row[c][OWN_ROWS * ty + i];
#pragma unroll
            for (int j = 0; j < OWN; j += WIDE) {
                float v[4];
                const float* from = &y.row[k + c][feature(j, tx)];
                if (WIDE == 4) *(float4*)v = *(const float4*)from;
                else *(float2*)v = *(const float2*)from;
#pragma unroll
                for (int w = 0; w < WIDE; w++)
#pragma unroll
                    for (int i = 0; i < OWN_ROWS; i++)
                        sum[i][j + w] = fmaf(p[i], v[w], sum[i][j + w]);
            }
        }
        __syncwarp();
    }
}

// A thread's sums, each row times its factor, to the rows of x from row `first` on.
__device__ __forceinline__ void write_rows(real* x, size_t stride,
                                           const float (&sum)[OWN_ROWS][OWN],
                                           const float (&factor)[OWN_ROWS], int first, int N,
                                           int ty, int tx) {
#pragma unroll
    for (int i = 0; i < OWN_ROWS; i++) {
        const int n = first + OWN_ROWS * ty + i;
        if (n >= N) continue;
#pragma unroll
        for (int j = 0; j < OWN; j += WIDE) {
            real* to = x + (size_t)n * stride + feature(j, tx);
            if (WIDE == 4)
                store4(to, make_float4(sum[i][j] * factor[i], sum[i][j + 1] * factor[i],
                                       sum[i][j + 2] * factor[i], sum[i][j + 3] * factor[i]));
            else
                store2(to, sum[i][j] * factor[i], sum[i][j + 1] * factor[i]);
        }
    }
}
