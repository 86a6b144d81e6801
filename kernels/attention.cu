// Attention over the token forest: forward and backward without a matrix of pairs.
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
//     Δᵢ = doᵢ · oᵢ                                               (8.18)
//     dqᵢ = (1/√D) Σⱼ dsᵢⱼ kⱼ                                     (8.19)
//     dkⱼ = (1/√D) Σᵢ dsᵢⱼ qᵢ                                     (8.20)
//
// Rows are cut into tiles of B.  Of a tile of keys, `max_end` is the largest end: a tile of
// queries that begins at q₀ sees something of it only if max_end > q₀.  Tiles that cannot see each other
// are never loaded, so a forest of many short examples costs what its visible tiles cost.
//
// attention_max_end      max_end[t] for every tile t.  A warp a tile.
// attention_forward    a block has a tile of queries of one head and walks through the keys it sees,
//                      the tile itself first; (8.5) to (8.9) tile by tile, then o and λ.
// attention_delta   (8.18), a warp for each row and head.
// attention_dkv        a block has a tile of keys and walks through the queries that see it, which stand
//                      together: (8.13) and (8.20).
// attention_dq         a block has a tile of queries and walks through its keys: (8.19).
//
// dq has a kernel of its own, which makes the scores a second time.  In one kernel with dk and dv
// it would be a sum over blocks: atomics, and other bits in every run.
//
// A row that sees nothing, not even itself (end[i] ≤ i), gets o = 0 and λ = −∞, and no gradient.
//
// Launch: grid (tiles, H), 64 threads.  Queries come from the last tile down: in one long
// sequence those have the most keys, and what takes long should begin early.
//
// The tile.  A thread owns 4 rows of the tile of queries, and of the scores every TX-th column: it
// reads 4 + B/TX vectors of four features for 16·B/TX products.  Of o it owns 4 rows and D/TX
// features.  B = 32 and TX = 8 is the largest for which the four tiles of the backward pass
// fit into 48 KiB for D ≤ 80; for D = 128 B is 16.
// Rows in shared memory are 4 numbers longer than D: the eight rows that a quarter of a warp
// reads at once then begin 4 banks apart and touch each bank once.
// [banks] Where a row does not end with eight lanes (D = 80), the gap behind it moves the next one onto
// banks in use: filling a tile takes 1.2 passes for one, a tenth of all passes at most.
//
// The second number of __launch_bounds__ lets a thread have the registers that its sums need: left to
// itself the compiler spills some of them to memory.
//
// Bytes, S being those of one number: the least is 4·S·N·C forward (q, k, v, o) and 8·S·N·C
// backward.  A tile of queries reads each visible tile of keys again, from the L2 cache as
// a rule: 2·S·D numbers a row of B visible pairs, while it does 4·B·D operations with them.  So in
// float, arithmetic sets the pace, not memory.
// [sectors] λ is written by one lane of TX, 4 bytes in every 16, once behind the loop: 2 % of the sectors.
#include "dtype.cuh"
#include "reduce.cuh"
#include "forest.cuh"
#ifndef D
#define D 64  // features of a head: 32, 64, 80 or 128
#endif
#define B (D <= 80 ? 32 : 16)   // rows of a tile
#define TX (256 / B)            // threads side by side
#define THREADS (B / 4 * TX)    // 64
#define SCORES (B / TX)         // columns of a tile of scores that a thread owns
#define OWN (D / TX)            // features that a thread owns
#define ROW (D + 4)             // numbers from one row of a tile to the next
#define S_ROW (B == 32 ? 34 : 20)  // the same for scores: rows 4 apart lie 8 (or 16) banks apart

struct Tile {
    float row[B][ROW];
};
struct Scores {
    float row[B][S_ROW];
};

// Features are owned in pairs or fours that stand together: number j of a thread is this feature.
#define WIDE (OWN % 4 == 0 ? 4 : 2)
__device__ __forceinline__ int feature(int j, int tx) { return j / WIDE * (TX * WIDE) + tx * WIDE + j % WIDE; }

// Four features of row `first` + r of x, with `stride` numbers from row to row; 0 behind the last.
__device__ __forceinline__ void load_tile(Tile& to, const real* x, size_t stride, int first, int N, float factor) {
    for (int e = threadIdx.x; e < B * D / 4; e += THREADS) {
        const int r = e / (D / 4), c = e % (D / 4) * 4;
        float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
        if (first + r < N) v = load4(x + (size_t)(first + r) * stride + c);
        *(float4*)&to.row[r][c] = make_float4(v.x * factor, v.y * factor, v.z * factor, v.w * factor);  // [banks]
    }
}

// s[i][j] = x[4 ty + i] · y[tx + TX j]
__device__ __forceinline__ void inner(float (&s)[4][SCORES], const Tile& x, const Tile& y, int ty, int tx) {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < SCORES; j++) s[i][j] = 0.f;
#pragma unroll 4
    for (int c = 0; c < D; c += 4) {
        float4 a[4], b[SCORES];
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = *(const float4*)&x.row[4 * ty + i][c];
#pragma unroll
        for (int j = 0; j < SCORES; j++) b[j] = *(const float4*)&y.row[tx + TX * j][c];
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < SCORES; j++)
                s[i][j] += a[i].x * b[j].x + a[i].y * b[j].y + a[i].z * b[j].z + a[i].w * b[j].w;
    }
}

// sum[i][j] += Σ_c s[4 ty + i][c] · y[c][feature j], or with the rows and columns of s exchanged
template <bool TRANSPOSED>
__device__ __forceinline__ void weigh(float (&sum)[4][OWN], const Scores& s, const Tile& y, int ty, int tx) {
#pragma unroll 4
    for (int c = 0; c < B; c++) {
        float p[4];
#pragma unroll
        for (int i = 0; i < 4; i++) p[i] = TRANSPOSED ? s.row[c][4 * ty + i] : s.row[4 * ty + i][c];
#pragma unroll
        for (int j = 0; j < OWN; j += WIDE) {
            float v[4];
            const float* from = &y.row[c][feature(j, tx)];
            if (WIDE == 4) *(float4*)v = *(const float4*)from;
            else *(float2*)v = *(const float2*)from;
#pragma unroll
            for (int w = 0; w < WIDE; w++)
#pragma unroll
                for (int i = 0; i < 4; i++) sum[i][j + w] = fmaf(p[i], v[w], sum[i][j + w]);
        }
    }
}

__device__ __forceinline__ void put(Scores& to, const float (&s)[4][SCORES], int ty, int tx) {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < SCORES; j++) to.row[4 * ty + i][tx + TX * j] = s[i][j];
}

__device__ __forceinline__ void write_rows(real* x, size_t stride, const float (&sum)[4][OWN], const float (&factor)[4],
                                           int first, int N, int ty, int tx) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int n = first + 4 * ty + i;
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

__device__ __forceinline__ void load_ends(int (&to)[B], const int* end, int first, int N) {
    if (threadIdx.x < B) to[threadIdx.x] = first + (int)threadIdx.x < N ? end[first + threadIdx.x] : 0;
}

extern "C" __global__ void __launch_bounds__(32)
attention_max_end(
    const int* __restrict__ end,  // (N,)
    int* __restrict__ max_end,      // (R,)
    int N
) {
    const int j = blockIdx.x * B + threadIdx.x;
    int e = threadIdx.x < B && j < N ? end[j] : 0;
    for (int away = 16; away; away /= 2) e = max(e, __shfl_xor_sync(ALL_LANES, e, away));
    if (threadIdx.x == 0) max_end[blockIdx.x] = e;
}

extern "C" __global__ void __launch_bounds__(THREADS, 6)
attention_forward(
    const real* __restrict__ qkv,   // (N, 3, H, D)
    const int* __restrict__ end,    // (N,)
    const int* __restrict__ max_end,  // (R,)
    real* __restrict__ o,           // (N, H, D)
    float* __restrict__ lse,        // (H, N)
    int N,
    int H,
    float scale
) {
    __shared__ __align__(16) Tile Q, K, V;
    __shared__ Scores E;
    __shared__ int ends[B];
    const int h = blockIdx.y, tile = gridDim.x - 1 - blockIdx.x, q0 = tile * B;
    const int ty = threadIdx.x / TX, tx = threadIdx.x % TX;
    const size_t C = (size_t)H * D, stride = 3 * C;
    const real* q = qkv + h * D;
    load_tile(Q, q, stride, q0, N, scale);
    float m[4], total[4] = {}, a[4][OWN] = {};
#pragma unroll
    for (int i = 0; i < 4; i++) m[i] = MINUS_INFINITY;
    for (int t = tile; t >= 0; t = tile_before(max_end, t, q0)) {
        const int k0 = t * B;
        load_tile(K, q + C, stride, k0, N, 1.f);
        load_tile(V, q + 2 * C, stride, k0, N, 1.f);
        load_ends(ends, end, k0, N);
        __syncthreads();
        float s[4][SCORES];
        inner(s, Q, K, ty, tx);  // (8.2)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = q0 + 4 * ty + i;
            float m_new = m[i], sum = 0.f;
#pragma unroll
            for (int j = 0; j < SCORES; j++) {
                const int key = tx + TX * j;
                if (k0 + key > row || row >= ends[key]) s[i][j] = MINUS_INFINITY;  // (8.1)
                m_new = fmaxf(m_new, s[i][j]);
            }
            m_new = warp_max<TX>(m_new);                              // (8.5)
            const float base = m_new == MINUS_INFINITY ? 0.f : m_new;  // nothing seen yet
            const float alpha = expf(m[i] - base);                     // (8.6)
#pragma unroll
            for (int j = 0; j < SCORES; j++) sum += s[i][j] = expf(s[i][j] - base);  // (8.7)
            total[i] = alpha * total[i] + warp_sum<TX>(sum);  // (8.8)
            m[i] = m_new;
#pragma unroll
            for (int j = 0; j < OWN; j++) a[i][j] *= alpha;
        }
        put(E, s, ty, tx);
        __syncwarp();  // the rows of E that a warp reads are the ones that it wrote
        weigh<false>(a, E, V, ty, tx);  // (8.9)
        __syncthreads();
    }
    float inverse[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = q0 + 4 * ty + i;
        inverse[i] = total[i] > 0.f ? 1.f / total[i] : 0.f;
        if (tx == 0 && row < N) lse[(size_t)h * N + row] = m[i] + logf(total[i]);  // (8.11) [sectors]
    }
    write_rows(o + h * D, C, a, inverse, q0, N, ty, tx);  // (8.10)
}

extern "C" __global__ void __launch_bounds__(128)
attention_delta(
    const real* __restrict__ o,    // (N, H, D)
    const real* __restrict__ d_o,  // (N, H, D)
    float* __restrict__ delta,  // (H, N)
    int N,
    int H
) {
    const long long pair = blockIdx.x * 4ll + threadIdx.x / 32;  // row n, head h: n H + h
    if (pair >= (long long)N * H) return;
    float sum = 0.f;
    for (int d = threadIdx.x % 32; d < D; d += 32) sum += to_float(o[pair * D + d]) * to_float(d_o[pair * D + d]);
    sum = warp_sum<32>(sum);  // (8.18)
    if (threadIdx.x % 32 == 0) delta[(size_t)(pair % H) * N + pair / H] = sum;
}

// λ and Δᵢ of a tile of queries; where there is no row, no pair is visible either.
__device__ __forceinline__ void load_rows(float (&lse_rows)[B], float (&delta_rows)[B], const float* lse, const float* delta,
                                          int first, int N) {
    if (threadIdx.x < B) {
        const int n = first + threadIdx.x;
        lse_rows[threadIdx.x] = n < N ? lse[n] : 0.f;
        delta_rows[threadIdx.x] = n < N ? delta[n] : 0.f;
    }
}

// p and ds of a pair of tiles, for the scores that a thread owns.
__device__ __forceinline__ void pairs(float (&p)[4][SCORES], float (&ds)[4][SCORES], const Tile& Q, const Tile& K,
                                      const Tile& V, const Tile& dO, const float (&lse_rows)[B], const float (&delta_rows)[B],
                                      const int (&ends)[B], int q0, int k0, int ty, int tx) {
    inner(p, Q, K, ty, tx);    // (8.2)
    inner(ds, dO, V, ty, tx);  // (8.14)
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < SCORES; j++) {
            const int r = 4 * ty + i, key = tx + TX * j;
            const bool visible = k0 + key <= q0 + r && q0 + r < ends[key];  // (8.1)
            p[i][j] = visible ? expf(p[i][j] - lse_rows[r]) : 0.f;          // (8.12)
            ds[i][j] = p[i][j] * (ds[i][j] - delta_rows[r]);                      // (8.17)
        }
}

extern "C" __global__ void __launch_bounds__(THREADS, 4)
attention_dkv(
    const real* __restrict__ qkv,        // (N, 3, H, D)
    const real* __restrict__ d_o,        // (N, H, D)
    const int* __restrict__ end,         // (N,)
    const int* __restrict__ max_end,       // (R,)
    const float* __restrict__ lse,       // (H, N)
    const float* __restrict__ delta,  // (H, N)
    real* __restrict__ dqkv,             // (N, 3, H, D)
    int N,
    int H,
    float scale
) {
    __shared__ __align__(16) Tile Q, K, V, dO;
    __shared__ Scores S;
    __shared__ float lse_rows[B], delta_rows[B];
    __shared__ int ends[B];
    const int h = blockIdx.y, k0 = blockIdx.x * B, ty = threadIdx.x / TX, tx = threadIdx.x % TX;
    const size_t C = (size_t)H * D, stride = 3 * C;
    const real* q = qkv + h * D;
    load_tile(K, q + C, stride, k0, N, 1.f);
    load_tile(V, q + 2 * C, stride, k0, N, 1.f);
    load_ends(ends, end, k0, N);
    float dk[4][OWN] = {}, dv[4][OWN] = {};
    for (int q0 = k0; q0 < max_end[blockIdx.x]; q0 += B) {
        load_tile(Q, q, stride, q0, N, scale);
        load_tile(dO, d_o + h * D, C, q0, N, 1.f);
        load_rows(lse_rows, delta_rows, lse + (size_t)h * N, delta + (size_t)h * N, q0, N);
        __syncthreads();
        float p[4][SCORES], ds[4][SCORES];
        pairs(p, ds, Q, K, V, dO, lse_rows, delta_rows, ends, q0, k0, ty, tx);
        put(S, p, ty, tx);
        __syncthreads();
        weigh<true>(dv, S, dO, ty, tx);  // (8.13)
        __syncthreads();
        put(S, ds, ty, tx);
        __syncthreads();
        weigh<true>(dk, S, Q, ty, tx);  // (8.20), Q being q/√D
        __syncthreads();
    }
    const float one[4] = {1.f, 1.f, 1.f, 1.f};
    write_rows(dqkv + h * D + C, stride, dk, one, k0, N, ty, tx);
    write_rows(dqkv + h * D + 2 * C, stride, dv, one, k0, N, ty, tx);
}

extern "C" __global__ void __launch_bounds__(THREADS, 4)
attention_dq(
    const real* __restrict__ qkv,        // (N, 3, H, D)
    const real* __restrict__ d_o,        // (N, H, D)
    const int* __restrict__ end,         // (N,)
    const int* __restrict__ max_end,       // (R,)
    const float* __restrict__ lse,       // (H, N)
    const float* __restrict__ delta,  // (H, N)
    real* __restrict__ dqkv,             // (N, 3, H, D)
    int N,
    int H,
    float scale
) {
    __shared__ __align__(16) Tile Q, K, V, dO;
    __shared__ Scores S;
    __shared__ float lse_rows[B], delta_rows[B];
    __shared__ int ends[B];
    const int h = blockIdx.y, tile = gridDim.x - 1 - blockIdx.x, q0 = tile * B;
    const int ty = threadIdx.x / TX, tx = threadIdx.x % TX;
    const size_t C = (size_t)H * D, stride = 3 * C;
    const real* q = qkv + h * D;
    load_tile(Q, q, stride, q0, N, scale);
    load_tile(dO, d_o + h * D, C, q0, N, 1.f);
    load_rows(lse_rows, delta_rows, lse + (size_t)h * N, delta + (size_t)h * N, q0, N);
    float dq[4][OWN] = {};
    for (int t = tile; t >= 0; t = tile_before(max_end, t, q0)) {
        const int k0 = t * B;
        load_tile(K, q + C, stride, k0, N, 1.f);
        load_tile(V, q + 2 * C, stride, k0, N, 1.f);
        load_ends(ends, end, k0, N);
        __syncthreads();
        float p[4][SCORES], ds[4][SCORES];
        pairs(p, ds, Q, K, V, dO, lse_rows, delta_rows, ends, q0, k0, ty, tx);
        put(S, ds, ty, tx);
        __syncwarp();  // the rows of S that a warp reads are the ones that it wrote
        weigh<false>(dq, S, K, ty, tx);
        __syncthreads();
    }
    const float factor[4] = {scale, scale, scale, scale};
    write_rows(dqkv + h * D, stride, dq, factor, q0, N, ty, tx);  // (8.19)
}
