// Attention over the token forest on tensor cores, for numbers of 16 bits.
//
//     row i sees row j  ⟺  j ≤ i < end[j]                         (8.1)
//     sᵢⱼ = qᵢ · kⱼ / √D                                          (8.2)
//     m′ = max(m, maxⱼ sᵢⱼ)                                       (8.5)
//     α  = exp(m − m′)                                            (8.6)
//     eᵢⱼ = exp(sᵢⱼ − m′)                                         (8.7)
//     ℓ′ = α ℓ + Σⱼ eᵢⱼ                                           (8.8)
//     a′ = α a + Σⱼ eᵢⱼ vⱼ                                        (8.9)
//     oᵢ = a / ℓ                                                  (8.10)
//     λᵢ = m + ln ℓ                                               (8.11)
//     pᵢⱼ = exp(sᵢⱼ − λᵢ)                                         (8.12)
//     dvⱼ  = Σᵢ pᵢⱼ doᵢ                                           (8.13)
//     dpᵢⱼ = doᵢ · vⱼ                                             (8.14)
//     dsᵢₙ = pᵢₙ (dpᵢₙ − Δᵢ)                                      (8.17)
//     dqᵢ = (1/√D) Σⱼ dsᵢⱼ kⱼ                                     (8.19)
//     dkⱼ = (1/√D) Σᵢ dsᵢⱼ qᵢ                                     (8.20)
//
// The same algorithm as in attention.cu, whose attention_max_end and attention_delta it uses.  A
// block of WARPS warps owns 16 rows per warp, and loops over tiles of STEP other rows.  A warp's
// scores, (16, STEP), are sums of its tensor-core products and never leave its registers: after the
// softmax they are rounded and are the left factor of the next product.  In attention_mma_dkv the
// block owns keys, so its scores are transposed: rows are keys, and the sums over i run along STEP.
//
// Products are of 16-bit numbers, sums are in float; p and ds are rounded to 16 bits before they
// are multiplied.  That rounding, not the sums, sets the error.
//
// Launch: grid (tiles of 16·WARPS rows, H), 32·WARPS threads; queries from the last tile down.
//
// The tile.  With four warps a block reads each tile once for 64 rows of its own.  For D = 128 the
// backward pass has space for two warps: their two tiles and the two that they loop over fill 35
// KiB.  Rows in shared memory are 8 numbers, 16 bytes, longer than D: the eight rows of an ldmatrix
// are then in different banks for every D that is compiled.
// [banks] Where a row's length is not a multiple of eight lanes (D = 32 and 80), the gap after it
// moves the next row onto banks in use: filling a tile takes up to twice the passes that it needs,
// which are a third of all passes at most.
//
// Up to D = 64 a warp reads its own rows from shared memory once and keeps them in registers.  For
// longer heads the sums need those registers, and the rows are read again for every tile.
//
// Bytes: the least is 8·N·C forward and 16·N·C backward.  Each block that sees a tile of STEP rows
// reads it again, 4·STEP·D bytes for 4·(16·WARPS)·STEP·D operations: 16·WARPS operations for each
// byte from the L2 cache.
// [sectors] λ and Δ of a head begin anywhere in a sector, so eight of them are in two sectors: 3 %
// of all sectors.
#include "dtype.cuh"
#include "reduce.cuh"
#include "forest.cuh"
#include "mma.cuh"
#ifndef D
#define D 64  // features of a head: 32, 64, 80 or 128
#endif
#define WARPS (D <= 80 ? 4 : 2)
#define THREADS (32 * WARPS)
#define ROWS (16 * WARPS)  // that a block owns
#define STEP 32            // rows of a tile that a block loops over; a tile of max_end
#define ROW (D + 8)        // numbers from one row in shared memory to the next
#define KEEP (D <= 64)     // whether a warp's own rows stay in registers

// Copy rows of x to shared memory, 16 bytes a thread; 0 after the last row.
template <int COUNT>
__device__ __forceinline__ void load_rows(real (&to)[COUNT][ROW], const real* x, size_t stride,
                                          int first, int N) {
    for (int e = threadIdx.x; e < COUNT * D / 8; e += THREADS) {
        const int r = e / (D / 8), c = e % (D / 8) * 8;
        uint4 v = make_uint4(0, 0, 0, 0);
        if (first + r < N) v = *(const uint4*)(x + (size_t)(first + r) * stride + c);
        *(uint4*)&to[r][c] = v;  // [banks]
    }
}

// The warp's own 16 rows as left factors of products, 16 features each.
struct Fragment {
    const real (*rows)[ROW];  // the first of them, in shared memory
    unsigned of[KEEP ? D / 16 : 1][4];

    __device__ __forceinline__ void read(int k) {
        const int lane = threadIdx.x % 32;
        ldmatrix_x4(of[KEEP ? k / 16 : 0], &rows[lane % 16][k + lane / 16 * 8]);
    }
};
__device__ __forceinline__ Fragment load_fragment(const real (&rows)[ROWS][ROW]) {
    Fragment own;
    own.rows = rows + threadIdx.x / 32 * 16;
#pragma unroll
    for (int k = 0; KEEP && k < D; k += 16) own.read(k);
    return own;
}

// s (16, STEP) = the warp's own rows times the rows of a tile.
__device__ __forceinline__ void inner(float (&s)[STEP / 8][4], Fragment& own,
                                      const real (&tile)[STEP][ROW]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < STEP / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) s[n][i] = 0.f;
#pragma unroll
    for (int k = 0; k < D; k += 16) {
        if (!KEEP) own.read(k);
        const unsigned(&a)[4] = own.of[KEEP ? k / 16 : 0];
        unsigned b[4];
#pragma unroll
        for (int n = 0; n < STEP; n += 16) {
            ldmatrix_x4(b, &tile[n + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]);
            mma_m16n8k16(s[n / 8], a, b[0], b[1], real());
            mma_m16n8k16(s[n / 8 + 1], a, b[2], b[3], real());
        }
    }
}

// sum (16, D) += p (16, STEP), rounded, times a tile (STEP, D).
__device__ __forceinline__ void weigh(float (&sum)[D / 8][4], const float (&p)[STEP / 8][4],
                                      const real (&tile)[STEP][ROW]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < STEP; k += 16) {
        const float(&l)[4] = p[k / 8], (&r)[4] = p[k / 8 + 1];
        const unsigned a[4] = {packed(l[0], l[1]), packed(l[2], l[3]), packed(r[0], r[1]),
                               packed(r[2], r[3])};
#pragma unroll
        for (int n = 0; n < D; n += 16) {
            unsigned b[4];
            ldmatrix_x4_trans(b, &tile[k + lane % 16][n + lane / 16 * 8]);
            mma_m16n8k16(sum[n / 8], a, b[0], b[1], real());
            mma_m16n8k16(sum[n / 8 + 1], a, b[2], b[3], real());
        }
    }
}

// Rows g and g + 8 of the warp's 16, times `upper` and `lower`, to x from row `first` on.  Of two
// neighbouring products, 16 columns, a lane holds two numbers each.  Lanes 2i and 2i + 1 exchange
// one pair, so that each writes four neighbours, 8 bytes, and the four lanes of a row fill a
// sector.
__device__ __forceinline__ void write_rows(real* x, size_t stride, const float (&sum)[D / 8][4],
                                           float upper, float lower, int first, int N) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const bool odd = t % 2;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int n = first + g + 8 * half;
        const float factor = half ? lower : upper;
#pragma unroll
        for (int c = 0; c < D / 8; c += 2) {
            const float(&l)[4] = sum[c], (&r)[4] = sum[c + 1];
            const unsigned left = packed(l[2 * half] * factor, l[2 * half + 1] * factor);
            const unsigned right = packed(r[2 * half] * factor, r[2 * half + 1] * factor);
            const unsigned other = __shfl_xor_sync(ALL_LANES, odd ? left : right, 1);
            const uint2 four = odd ? make_uint2(other, right) : make_uint2(left, other);
            if (n < N) *(uint2*)(x + (size_t)n * stride + 8 * (c + odd) + 2 * (t - odd)) = four;
        }
    }
}

__device__ __forceinline__ int last_tile(int q0, int N) { return (min(q0 + ROWS, N) - 1) / STEP; }

// Over the four lanes that share a row.
__device__ __forceinline__ float row_max(float x) { return warp_max<4>(x); }
__device__ __forceinline__ float row_sum(float x) { return warp_sum<4>(x); }

// A tile of keys: where it is in shared memory.
struct Keys {
    real (&K)[STEP][ROW], (&V)[STEP][ROW];
    int (&end)[STEP];

    // From row k0 on; q points to the queries of row 0 and one head, C numbers before its keys.
    __device__ __forceinline__ void load(const real* q, const int* end_of, size_t C, int k0,
                                         int N) {
        load_rows(K, q + C, 3 * C, k0, N);
        load_rows(V, q + 2 * C, 3 * C, k0, N);
        const int j = k0 + (int)threadIdx.x;
        if (threadIdx.x < STEP) end[threadIdx.x] = j < N ? end_of[j] : 0;
    }
};

// p and ds of one pair of rows, in place of q · k and do · v.
__device__ __forceinline__ void backward_pair(float& p, float& ds, bool visible, float scale,
                                              const float& lambda, const float& delta) {
    p = visible ? expf(p * scale - lambda) : 0.f;  // (8.2) (8.12)
    ds = p * (ds - delta);                         // (8.17)
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
attention_mma_forward(
    const real* __restrict__ qkv,     // (N, 3, H, D)
    const int* __restrict__ end,      // (N,)
    const int* __restrict__ max_end,  // (R,)
    real* __restrict__ o,             // (N, H, D)
    float* __restrict__ lse,          // (H, N)
    int N,
    int H,
    float scale
) {
    __shared__ __align__(16) real Q[ROWS][ROW], K[STEP][ROW], V[STEP][ROW];
    __shared__ int ends[STEP];
    Keys keys = {K, V, ends};
    const int h = blockIdx.y, q0 = (gridDim.x - 1 - blockIdx.x) * ROWS, warp = threadIdx.x / 32;
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, first = q0 + 16 * warp;
    const size_t C = (size_t)H * D;
    const real* q = qkv + h * D;
    load_rows(Q, q, 3 * C, q0, N);
    __syncthreads();
    Fragment queries = load_fragment(Q);
    float m[2] = {MINUS_INFINITY, MINUS_INFINITY}, total[2] = {}, a[D / 8][4] = {};
    for (int tile = last_tile(q0, N); tile >= 0; tile = tile_before(max_end, tile, q0)) {
        const int k0 = tile * STEP;
        keys.load(q, end, C, k0, N);
        __syncthreads();
        float s[STEP / 8][4], m_new[2] = {m[0], m[1]}, base[2], alpha[2];
        inner(s, queries, K);
#pragma unroll
        for (int n = 0; n < STEP / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int key = 8 * n + 2 * t + i % 2, row = first + g + i / 2 * 8;
                const bool visible = k0 + key <= row && row < ends[key];  // (8.1)
                s[n][i] = visible ? s[n][i] * scale : MINUS_INFINITY;     // (8.2)
                m_new[i / 2] = fmaxf(m_new[i / 2], s[n][i]);
            }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            m_new[half] = row_max(m_new[half]);                              // (8.5)
            base[half] = m_new[half] == MINUS_INFINITY ? 0.f : m_new[half];  // nothing seen yet
            alpha[half] = expf(m[half] - base[half]);                        // (8.6)
            m[half] = m_new[half];
            total[half] *= alpha[half];
        }
#pragma unroll
        for (int n = 0; n < STEP / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[n][i] = expf(s[n][i] - base[i / 2]);  // (8.7)
                total[i / 2] += s[n][i];                // (8.8), of this lane's columns
            }
#pragma unroll
        for (int c = 0; c < D / 8; c++)
#pragma unroll
            for (int i = 0; i < 4; i++) a[c][i] *= alpha[i / 2];
        weigh(a, s, V);  // (8.9)
        __syncthreads();
    }
    float factor[2];  // 1/ℓ
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float sum = row_sum(total[half]);
        const int row = first + g + 8 * half;
        factor[half] = sum > 0.f ? 1.f / sum : 0.f;
        if (t == 0 && row < N)
            lse[(size_t)h * N + row] = m[half] + logf(sum);  // (8.11) [sectors]
    }
    write_rows(o + h * D, C, a, factor[0], factor[1], first, N);  // (8.10)
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
attention_mma_dkv(
    const real* __restrict__ qkv,     // (N, 3, H, D)
    const real* __restrict__ d_o,     // (N, H, D)
    const int* __restrict__ end,      // (N,)
    const int* __restrict__ max_end,  // (R,)
    const float* __restrict__ lse,    // (H, N)
    const float* __restrict__ delta,  // (H, N)
    real* __restrict__ dqkv,          // (N, 3, H, D)
    int N,
    int H,
    float scale
) {
    __shared__ __align__(16) real K[ROWS][ROW], V[ROWS][ROW], Q[STEP][ROW], dO[STEP][ROW];
    __shared__ float lse_rows[STEP], delta_rows[STEP];
    const int h = blockIdx.y, k0 = blockIdx.x * ROWS, warp = threadIdx.x / 32;
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, first = k0 + 16 * warp;
    const size_t C = (size_t)H * D;
    const real* q = qkv + h * D;
    load_rows(K, q + C, 3 * C, k0, N);
    load_rows(V, q + 2 * C, 3 * C, k0, N);
    __syncthreads();
    Fragment keys = load_fragment(K), values = load_fragment(V);
    int own_end[2], last_end = 0;  // last_end: the largest end of the block's keys
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int key = first + g + 8 * half;
        own_end[half] = key < N ? end[key] : 0;
    }
    for (int tile = k0 / STEP; tile <= last_tile(k0, N); tile++)
        last_end = max(last_end, max_end[tile]);
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    for (int q0 = k0; q0 < last_end; q0 += STEP) {
        load_rows(Q, q, 3 * C, q0, N);
        load_rows(dO, d_o + h * D, C, q0, N);
        if (threadIdx.x < STEP) {
            const int row = q0 + threadIdx.x;
            lse_rows[threadIdx.x] = row < N ? lse[(size_t)h * N + row] : 0.f;
            delta_rows[threadIdx.x] = row < N ? delta[(size_t)h * N + row] : 0.f;
        }
        __syncthreads();
        float p[STEP / 8][4], ds[STEP / 8][4];
        inner(p, keys, Q);
        inner(ds, values, dO);  // (8.14)
#pragma unroll
        for (int n = 0; n < STEP / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int query = 8 * n + 2 * t + i % 2, row = q0 + query;
                const int key = first + g + i / 2 * 8;
                const bool visible = key <= row && row < own_end[i / 2];  // (8.1)
                backward_pair(p[n][i], ds[n][i], visible, scale, lse_rows[query],
                              delta_rows[query]);
            }
        weigh(dv, p, dO);  // (8.13)
        weigh(dk, ds, Q);
        __syncthreads();
    }
    write_rows(dqkv + h * D + C, 3 * C, dk, scale, scale, first, N);  // (8.20)
    write_rows(dqkv + h * D + 2 * C, 3 * C, dv, 1.f, 1.f, first, N);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
attention_mma_dq(
    const real* __restrict__ qkv,     // (N, 3, H, D)
    const real* __restrict__ d_o,     // (N, H, D)
    const int* __restrict__ end,      // (N,)
    const int* __restrict__ max_end,  // (R,)
    const float* __restrict__ lse,    // (H, N)
    const float* __restrict__ delta,  // (H, N)
    real* __restrict__ dqkv,          // (N, 3, H, D)
    int N,
    int H,
    float scale
) {
    __shared__ __align__(16) real Q[ROWS][ROW], dO[ROWS][ROW], K[STEP][ROW], V[STEP][ROW];
    __shared__ int ends[STEP];
    Keys keys = {K, V, ends};
    const int h = blockIdx.y, q0 = (gridDim.x - 1 - blockIdx.x) * ROWS, warp = threadIdx.x / 32;
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, first = q0 + 16 * warp;
    const size_t C = (size_t)H * D, head = (size_t)h * N;
    const real* q = qkv + h * D;
    load_rows(Q, q, 3 * C, q0, N);
    load_rows(dO, d_o + h * D, C, q0, N);
    __syncthreads();
    Fragment queries = load_fragment(Q), gradients = load_fragment(dO);
    float own_lse[2], own_delta[2], dq[D / 8][4] = {};
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first + g + 8 * half;
        own_lse[half] = row < N ? lse[head + row] : 0.f;      // [sectors]
        own_delta[half] = row < N ? delta[head + row] : 0.f;  // [sectors]
    }
    for (int tile = last_tile(q0, N); tile >= 0; tile = tile_before(max_end, tile, q0)) {
        const int k0 = tile * STEP;
        keys.load(q, end, C, k0, N);
        __syncthreads();
        float p[STEP / 8][4], ds[STEP / 8][4];
        inner(p, queries, K);
        inner(ds, gradients, V);  // (8.14)
#pragma unroll
        for (int n = 0; n < STEP / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int key = 8 * n + 2 * t + i % 2, row = first + g + i / 2 * 8;
                const bool visible = k0 + key <= row && row < ends[key];  // (8.1)
                backward_pair(p[n][i], ds[n][i], visible, scale, own_lse[i / 2],
                              own_delta[i / 2]);
            }
        weigh(dq, ds, K);
        __syncthreads();
    }
    write_rows(dqkv + h * D, 3 * C, dq, scale, scale, first, N);  // (8.19)
}
