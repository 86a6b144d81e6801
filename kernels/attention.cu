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
// end[j] is the row where the subtree of row j's segment ends.  Rows are cut into tiles of B.
// max_end[t] is the largest end of tile t's keys: a tile of queries that begins at q₀ sees
// something of it only if max_end[t] > q₀.  Tiles that do not see each other are never loaded, so
// a forest of many short examples costs what its visible tiles cost.  (FlashMask, Wang et al. 2024,
// stores the same two arrays for causal masks, as LTS and its maxima over blocks.)  The host
// computes max_end, device/attention_blocks.py.
//
// attention_forward    one block per head and tile of queries.  It loops over the tiles of keys
//                      that these queries see, its own tile first: (8.5) to (8.9), then o and λ.
// attention_delta      (8.18), one warp per row and head.
// attention_dkv        one block per head and tile of keys.  It loops over the tiles of queries
//                      that see these keys, which follow each other: (8.13) and (8.20).
// attention_dq         one block per head and tile of queries, which loops over its keys: (8.19).
//
// dq has its own kernel, which recomputes the scores once more.  In one kernel with dk and dv,
// several blocks would add to the same rows of dq.  That needs atomics, and with them the order of
// additions, and so the bits of the result, differ from run to run.
//
// A row that sees nothing, not even itself (end[i] ≤ i), gets o = 0, λ = −∞ and no gradient.
//
// Launch: grid (tiles, H), 64 threads.  Queries come from the last tile down: in one long sequence
// the last tiles have the most keys, and what takes longest should begin first.
//
// The tile.  A thread owns 4 rows of the tile of queries, and of the scores every TX-th column: it
// reads 4 + B/TX vectors of four features for 16·B/TX products.  Of o it owns 4 rows and D/TX
// features.  B = 32 with TX = 8 is the largest tile for which the four tiles of the backward pass
// fit into 48 KiB for D ≤ 80; for D = 128 B is 16.
// Rows in shared memory are 4 numbers longer than D, so that the eight rows that a quarter of a
// warp reads at once begin 4 banks apart and together use each bank once.
// [banks] Where a row's length is not a multiple of eight lanes (D = 80), the gap after it moves
// the next row onto banks in use: filling a tile takes 1.2 times the passes that it needs, which
// are a tenth of all passes at most.
//
// The second number of __launch_bounds__ lets a thread have the registers that its sums need:
// without it the compiler spills some of them to memory.
//
// Bytes, with S bytes a number: the least is 4·S·N·C forward (q, k, v, o) and 8·S·N·C backward.  A
// tile of queries reads each visible tile of keys again, as a rule from the L2 cache: 2·S·D bytes
// for a row of B visible pairs, on which it does 4·B·D operations.  So in float, arithmetic is the
// limit, not memory.
// [sectors] One lane of TX writes λ, 4 bytes in every 16, once after the loop: 2 % of the sectors.
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

// A thread owns features in pairs or fours of neighbours: its number j is this feature.
#define WIDE (OWN % 4 == 0 ? 4 : 2)
__device__ __forceinline__ int feature(int j, int tx) {
    return j / WIDE * (TX * WIDE) + tx * WIDE + j % WIDE;
}

// B rows of x times a factor, from row `first` on, with `stride` numbers from row to row; 0 after
// the last row.
__device__ __forceinline__ void load_tile(Tile& to, const real* x, size_t stride, int first, int N,
                                          float factor) {
    for (int e = threadIdx.x; e < B * D / 4; e += THREADS) {
        const int r = e / (D / 4), c = e % (D / 4) * 4;
        float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
        if (first + r < N) v = load4(x + (size_t)(first + r) * stride + c);
        v = make_float4(v.x * factor, v.y * factor, v.z * factor, v.w * factor);
        *(float4*)&to.row[r][c] = v;  // [banks]
    }
}

// s[i][j] = x[4 ty + i] · y[tx + TX j]
__device__ __forceinline__ void inner(float (&s)[4][SCORES], const Tile& x, const Tile& y, int ty,
                                      int tx) {
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

// sum[i][j] += Σ_c s[4 ty + i][c] · y[c][feature j], with s or with its transpose.
template <bool TRANSPOSED>
__device__ __forceinline__ void weigh(float (&sum)[4][OWN], const Scores& s, const Tile& y, int ty,
                                      int tx) {
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

// The tile of x that begins at row `first`: a thread's sums, each row times its factor.
__device__ __forceinline__ void write_rows(real* x, size_t stride, const float (&sum)[4][OWN],
                                           const float (&factor)[4], int first, int N, int ty,
                                           int tx) {
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

// A tile of keys: where it is in shared memory.
struct Keys {
    Tile &K, &V;
    int (&end)[B];

    // From row k0 on; q points to the queries of row 0 and one head, C numbers before its keys.
    __device__ __forceinline__ void load(const real* q, const int* end_of, size_t C, int k0,
                                         int N) {
        load_tile(K, q + C, 3 * C, k0, N, 1.f);
        load_tile(V, q + 2 * C, 3 * C, k0, N, 1.f);
        const int j = k0 + (int)threadIdx.x;
        if (threadIdx.x < B) end[threadIdx.x] = j < N ? end_of[j] : 0;
    }
};

// A tile of queries, likewise, with what the backward pass needs; Q is q/√D.
struct Queries {
    Tile &Q, &dO;
    float (&lse)[B], (&delta)[B];

    // From row q0 on; `lse_of` and `delta_of` point to row 0 of the head.  No key sees a row after
    // the last one, so what it holds does not count.
    __device__ __forceinline__ void load(const real* q, const real* d_o, const float* lse_of,
                                         const float* delta_of, size_t C, float scale, int q0,
                                         int N) {
        load_tile(Q, q, 3 * C, q0, N, scale);
        load_tile(dO, d_o, C, q0, N, 1.f);
        const int n = q0 + (int)threadIdx.x;
        if (threadIdx.x < B) {
            lse[threadIdx.x] = n < N ? lse_of[n] : 0.f;
            delta[threadIdx.x] = n < N ? delta_of[n] : 0.f;
        }
    }
};

// p and ds of a pair of tiles, for the scores that a thread owns.
__device__ __forceinline__ void backward_pairs(float (&p)[4][SCORES], float (&ds)[4][SCORES],
                                               const Queries& queries, const Keys& keys, int q0,
                                               int k0, int ty, int tx) {
    inner(p, queries.Q, keys.K, ty, tx);    // (8.2)
    inner(ds, queries.dO, keys.V, ty, tx);  // (8.14)
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < SCORES; j++) {
            const int r = 4 * ty + i, row = q0 + r, key = tx + TX * j;
            const bool visible = k0 + key <= row && row < keys.end[key];  // (8.1)
            p[i][j] = visible ? expf(p[i][j] - queries.lse[r]) : 0.f;     // (8.12)
            ds[i][j] = p[i][j] * (ds[i][j] - queries.delta[r]);           // (8.17)
        }
}

extern "C" __global__ void __launch_bounds__(THREADS, 6)
attention_forward(
    const real* __restrict__ qkv,     // (N, 3, H, D)
    const int* __restrict__ end,      // (N,)
    const int* __restrict__ max_end,  // (R,)
    real* __restrict__ o,             // (N, H, D)
    float* __restrict__ lse,          // (H, N)
    int N,
    int H,
    float scale
) {
    __shared__ __align__(16) Tile Q, K, V;
    __shared__ Scores E;
    __shared__ int ends[B];
    Keys keys = {K, V, ends};
    const int h = blockIdx.y, tile = gridDim.x - 1 - blockIdx.x, q0 = tile * B;
    const int ty = threadIdx.x / TX, tx = threadIdx.x % TX;
    const size_t C = (size_t)H * D;
    const real* q = qkv + h * D;
    load_tile(Q, q, 3 * C, q0, N, scale);
    float m[4], total[4] = {}, a[4][OWN] = {};
#pragma unroll
    for (int i = 0; i < 4; i++) m[i] = MINUS_INFINITY;
    for (int t = tile; t >= 0; t = tile_before(max_end, t, q0)) {
        const int k0 = t * B;
        keys.load(q, end, C, k0, N);
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
            m_new = warp_max<TX>(m_new);                               // (8.5)
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
        __syncwarp();  // a warp reads only rows of E that it wrote itself
        weigh<false>(a, E, V, ty, tx);  // (8.9)
        __syncthreads();
    }
    float factor[4];  // 1/ℓ
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = q0 + 4 * ty + i;
        factor[i] = total[i] > 0.f ? 1.f / total[i] : 0.f;
        const float lambda = m[i] + logf(total[i]);                 // (8.11)
        if (tx == 0 && row < N) lse[(size_t)h * N + row] = lambda;  // [sectors]
    }
    write_rows(o + h * D, C, a, factor, q0, N, ty, tx);  // (8.10)
}

extern "C" __global__ void __launch_bounds__(128)
attention_delta(
    const real* __restrict__ o,    // (N, H, D)
    const real* __restrict__ d_o,  // (N, H, D)
    float* __restrict__ delta,     // (H, N)
    int N,
    int H
) {
    const long long pair = blockIdx.x * 4ll + threadIdx.x / 32;  // row n, head h: n H + h
    if (pair >= (long long)N * H) return;
    float sum = 0.f;
    for (int d = threadIdx.x % 32; d < D; d += 32)
        sum += to_float(o[pair * D + d]) * to_float(d_o[pair * D + d]);
    sum = warp_sum<32>(sum);  // (8.18)
    if (threadIdx.x % 32 == 0) delta[(size_t)(pair % H) * N + pair / H] = sum;
}

extern "C" __global__ void __launch_bounds__(THREADS, 4)
attention_dkv(
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
    __shared__ __align__(16) Tile Q, K, V, dO;
    __shared__ Scores S;
    __shared__ float lse_rows[B], delta_rows[B];
    __shared__ int ends[B];
    Keys keys = {K, V, ends};
    Queries queries = {Q, dO, lse_rows, delta_rows};
    const int h = blockIdx.y, k0 = blockIdx.x * B, ty = threadIdx.x / TX, tx = threadIdx.x % TX;
    const size_t C = (size_t)H * D, head = (size_t)h * N;
    const real* q = qkv + h * D;
    keys.load(q, end, C, k0, N);
    float dk[4][OWN] = {}, dv[4][OWN] = {};
    for (int q0 = k0; q0 < max_end[blockIdx.x]; q0 += B) {
        queries.load(q, d_o + h * D, lse + head, delta + head, C, scale, q0, N);
        __syncthreads();
        float p[4][SCORES], ds[4][SCORES];
        backward_pairs(p, ds, queries, keys, q0, k0, ty, tx);
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
    write_rows(dqkv + h * D + C, 3 * C, dk, one, k0, N, ty, tx);
    write_rows(dqkv + h * D + 2 * C, 3 * C, dv, one, k0, N, ty, tx);
}

extern "C" __global__ void __launch_bounds__(THREADS, 4)
attention_dq(
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
    __shared__ __align__(16) Tile Q, K, V, dO;
    __shared__ Scores S;
    __shared__ float lse_rows[B], delta_rows[B];
    __shared__ int ends[B];
    Keys keys = {K, V, ends};
    Queries queries = {Q, dO, lse_rows, delta_rows};
    const int h = blockIdx.y, tile = gridDim.x - 1 - blockIdx.x, q0 = tile * B;
    const int ty = threadIdx.x / TX, tx = threadIdx.x % TX;
    const size_t C = (size_t)H * D, head = (size_t)h * N;
    const real* q = qkv + h * D;
    queries.load(q, d_o + h * D, lse + head, delta + head, C, scale, q0, N);
    float dq[4][OWN] = {};
    for (int t = tile; t >= 0; t = tile_before(max_end, t, q0)) {
        const int k0 = t * B;
        keys.load(q, end, C, k0, N);
        __syncthreads();
        float p[4][SCORES], ds[4][SCORES];
        backward_pairs(p, ds, queries, keys, q0, k0, ty, tx);
        put(S, ds, ty, tx);
        __syncwarp();  // a warp reads only rows of S that it wrote itself
        weigh<false>(dq, S, K, ty, tx);
        __syncthreads();
    }
    const float factor[4] = {scale, scale, scale, scale};
    write_rows(dqkv + h * D, 3 * C, dq, factor, q0, N, ty, tx);  // (8.19)
}
