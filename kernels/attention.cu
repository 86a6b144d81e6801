// Attention over the token forest: forward and backward without a matrix of pairs.
//
//     row i sees row j  ⟺  j ≤ i < end[j]                         (8.1)
//     sᵢⱼ = qᵢ · kⱼ / τ                                           (8.2)
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
//     dqᵢ = (1/τ) Σⱼ dsᵢⱼ kⱼ                                      (8.19)
//     dkⱼ = (1/τ) Σᵢ dsᵢⱼ qᵢ                                      (8.20)
//
// end[j] is the row where the subtree of row j's segment ends.  Rows are cut into tiles of M.
// max_end[t] is the largest end of tile t's keys: queries from q₀ on sees
// something of it only if max_end[t] > q₀.  Tiles that do not see each other are never loaded, so
// a forest of many short examples costs what its visible tiles cost.  (FlashMask, Wang et al. 2024,
// stores the same two arrays for causal masks, as LTS and its maxima over blocks.)  The host
// computes max_end, device/attention_blocks.py.
//
// attention_forward    one block per head and B queries.  It walks back over the tiles of keys that
//                      these queries see, from its own on: (8.5) to (8.9), then o and λ.
// attention_delta      (8.18), one warp per row and head.
// attention_dkv        one block per head and B keys.  It loops over the tiles of queries that see
//                      these keys, which follow each other: (8.13) and (8.20).
// attention_dq         one block per head and B queries, which walks over its keys: (8.19).
//
// dq has its own kernel, which recomputes the scores once more.  In one kernel with dk and dv,
// several blocks would add to the same rows of dq.  That needs atomics, and with them the order of
// additions, and so the bits of the result, differ from run to run.
//
// A row that sees nothing, not even itself (end[i] ≤ i), gets o = 0, λ = −∞ and no gradient.
// With c = log₂(e)/τ, exp(s − m) is 2^(c q·k − c m): one product with a sum, and one instruction.
//
// Launch: grid (H, blocks of B rows), 64 threads; `order` names the blocks, those with most tiles
// first, so that no long one is left at the end.
//
// The tile.  A block owns B rows, and a thread OWN_ROWS of them: all three kernels compute scores
// of own rows with M met ones, then weighted sums over the met rows.  Eight threads share their own
// rows: of a tile of scores each has every eighth column, of a sum an eighth of the features.
// In a clock a multiprocessor does 128 products, but reads 32 numbers of shared memory.  So a
// number that is read should serve in four products.  For D = 64 and 8 own rows it does so in the
// sums (8 features and 8 weights for 64 products), and in the scores for M = 64.  The backward pass
// has scores, their gradients and up to two sums in registers, and four tiles in shared memory:
// there M is 32, and in the scores a number serves in 2.7 products.  Four blocks fit on a
// multiprocessor of sm_90, and a thread may have all of its 255 registers.  For D > 64 the sums are
// wider, and B is 32.  The compiler unrolls the loop of dq's scores over the features twice where
// D = 64: on an H200 579 µs, not 602 (8 sequences of 1,023 tokens, 12 heads).  In dkv registers
// would spill.
// Scores become weights of the sum STEP columns at a time, through shared memory.  A warp reads
// only weights that it wrote itself, so there its threads wait for no other warp.
// In float, copies go on while a block computes: of the next pair of tiles each is copied as soon
// as the last one is no longer needed.  Numbers of 16 bits are converted on their way.
// Rows of met tiles are 4 numbers longer than D, and rows of weights than B, so that the eight that
// a quarter of a warp reads or writes at once begin 4 banks apart and together use each bank once.
// [banks] Where a row's length is not a multiple of eight lanes (D = 80), the gap after it moves
// the next row onto banks in use: filling a tile takes 1.2 times the passes that it needs, which
// are a tenth of all passes at most.
//
// Bytes, with S bytes a number: the least is 4·S·N·C forward (q, k, v, o) and 8·S·N·C backward.  A
// block reads each visible tile again, as a rule from the L2 cache: 2·S·D bytes for a row of B
// visible pairs, on which it does 4·B·D operations.  So in float, arithmetic is the limit.
// [sectors] One lane of TX writes λ, 4 bytes in every 32, once after the loop: 2 % of the sectors.
// dq reads λ and Δ of its rows, once, likewise.
#include "dtype.cuh"
#include "fast.cuh"
#include "reduce.cuh"
#include "copy_async.cuh"
#include "forest.cuh"
#ifndef D
#define D 64  // features of a head: 32, 64, 80 or 128
#endif
#define B (D <= 64 ? 64 : 32)          // own rows of a block
#define FORWARD_M (D <= 64 ? 64 : 32)  // rows of a met tile
#define BACKWARD_M (D <= 80 ? 32 : 16)
#define THREADS 64
#define TX 8                      // threads side by side, which share their own rows
#define OWN_ROWS (B * TX / THREADS)
#define OWN (D / TX)              // features that a thread owns
#define DQ_FOURS (D == 64 ? 2 : 1)  // 4 features each, in a pass of dq's inner products
#define STEP 16                   // columns of scores that are in shared memory at once

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

struct ForwardShared {
    Rows q;
    Tile<FORWARD_M> k, v;
    Weights weights;
    int ends[2][FORWARD_M];  // of two tiles, in turns
};

extern "C" __global__ void __launch_bounds__(THREADS, 4)
attention_forward(
    const real* __restrict__ qkv,     // (N, 3, H, D)
    const int* __restrict__ end,      // (N,)
    const int* __restrict__ max_end,  // (T,)
    const int* __restrict__ order,    // (B,)
    real* __restrict__ o,             // (N, H, D)
    float* __restrict__ lse,          // (H, N)
    int N,
    int H,
    float scale
) {
    extern __shared__ __align__(16) unsigned char memory[];
    ForwardShared& shared = *(ForwardShared*)memory;
    const int h = blockIdx.x, q0 = order[blockIdx.y] * B;
    const int ty = threadIdx.x / TX, tx = threadIdx.x % TX;
    const unsigned C = H * D;
    const real *q = qkv + h * D, *k = q + C, *v = k + C;
    int tile = (min(q0 + B, N) - 1) / FORWARD_M, turn = 0;
    copy_rows(shared.q.row, q, 3 * C, q0, N);
    copy_rows(shared.k.row, k, 3 * C, tile * FORWARD_M, N);  // [banks]
    copy_numbers(shared.ends[0], end, tile * FORWARD_M, N);
    commit_copies();
    copy_rows(shared.v.row, v, 3 * C, tile * FORWARD_M, N);  // [banks]
    commit_copies();
    const float c = scale * LOG2_E;
    float m[OWN_ROWS], total[OWN_ROWS] = {}, a[OWN_ROWS][OWN] = {};  // m without the factor 1/τ
#pragma unroll
    for (int i = 0; i < OWN_ROWS; i++) m[i] = MINUS_INFINITY;
    for (;;) {
        const int k0 = tile * FORWARD_M, next = tile_before(max_end, tile, q0);
        wait_for_copies<1>();
        __syncthreads();  // the keys are here
        float s[OWN_ROWS][FORWARD_M / TX];
        inner<1>(s, shared.q, shared.k, ty, tx);  // (8.2)
        __syncthreads();
        if (next >= 0) {
            copy_rows(shared.k.row, k, 3 * C, next * FORWARD_M, N);  // [banks]
            copy_numbers(shared.ends[turn ^ 1], end, next * FORWARD_M, N);
        }
        commit_copies();
#pragma unroll
        for (int j = 0; j < FORWARD_M / TX; j++) {
            const int key = k0 + tx + TX * j;
            const unsigned length = max(shared.ends[turn][tx + TX * j] - key, 0);
#pragma unroll
            for (int i = 0; i < OWN_ROWS; i++) {
                const int row = q0 + OWN_ROWS * ty + i;
                // key ≤ row < end  ⟺  0 ≤ row − key < length: one comparison without signs
                if (!((unsigned)(row - key) < length)) s[i][j] = MINUS_INFINITY;  // (8.1)
            }
        }
#pragma unroll
        for (int i = 0; i < OWN_ROWS; i++) {
            float m_new = m[i], sum = 0.f;
#pragma unroll
            for (int j = 0; j < FORWARD_M / TX; j++) m_new = fmaxf(m_new, s[i][j]);
            m_new = warp_max<TX>(m_new);                                   // (8.5)
            const float base = m_new == MINUS_INFINITY ? 0.f : m_new * c;  // nothing seen yet
            const float alpha = power_of_2(m[i] * c - base);               // (8.6)
#pragma unroll
            for (int j = 0; j < FORWARD_M / TX; j++)
                sum += s[i][j] = power_of_2(s[i][j] * c - base);  // (8.7)
            total[i] = alpha * total[i] + sum;  // (8.8), of the keys of this thread
            m[i] = m_new;
#pragma unroll
            for (int j = 0; j < OWN; j++) a[i][j] *= alpha;
        }
        wait_for_copies<1>();
        __syncthreads();  // the values are here
        weigh(a, s, shared.weights, shared.v, ty, tx);  // (8.9)
        if (next < 0) break;
        __syncthreads();
        copy_rows(shared.v.row, v, 3 * C, next * FORWARD_M, N);  // [banks]
        commit_copies();
        tile = next, turn ^= 1;
    }
    float factor[OWN_ROWS];  // 1/ℓ
#pragma unroll
    for (int i = 0; i < OWN_ROWS; i++) {
        const int row = q0 + OWN_ROWS * ty + i;
        const float sum = warp_sum<TX>(total[i]);
        factor[i] = sum > 0.f ? 1.f / sum : 0.f;
        const float lambda = m[i] * scale + logf(sum);              // (8.11)
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

struct BackwardShared {
    Rows own, own_too;                         // dkv: k, v; dq: q, do
    Tile<BACKWARD_M> met, met_too;             // dkv: q, do; dq: k, v
    Weights weights;
    float lse[BACKWARD_M], delta[BACKWARD_M];  // dkv: of the met queries
    int ends[BACKWARD_M];                      // dq: of the met keys
    int lengths[B];                            // dkv: how many queries see each own key
};

extern "C" __global__ void __launch_bounds__(THREADS, 4)
attention_dkv(
    const real* __restrict__ qkv,     // (N, 3, H, D)
    const real* __restrict__ d_o,     // (N, H, D)
    const int* __restrict__ end,      // (N,)
    const int* __restrict__ max_end,  // (B,)
    const int* __restrict__ order,    // (B,)
    const float* __restrict__ lse,    // (H, N)
    const float* __restrict__ delta,  // (H, N)
    real* __restrict__ dqkv,          // (N, 3, H, D)
    int N,
    int H,
    float scale
) {
    extern __shared__ __align__(16) unsigned char memory[];
    BackwardShared& shared = *(BackwardShared*)memory;
    const int h = blockIdx.x, block = order[blockIdx.y], k0 = block * B;
    const int ty = threadIdx.x / TX, tx = threadIdx.x % TX, furthest = max_end[block];
    const unsigned C = H * D;
    const real *q = qkv + h * D, *d_o_h = d_o + h * D;
    const float *lse_h = lse + (size_t)h * N, *delta_h = delta + (size_t)h * N;
    copy_rows(shared.own.row, q + C, 3 * C, k0, N);
    copy_rows(shared.own_too.row, q + 2 * C, 3 * C, k0, N);
    copy_rows(shared.met_too.row, d_o_h, C, k0, N);  // [banks]
    commit_copies();
    copy_rows(shared.met.row, q, 3 * C, k0, N);  // [banks]
    copy_numbers(shared.lse, lse_h, k0, N);
    copy_numbers(shared.delta, delta_h, k0, N);
    commit_copies();
    if (threadIdx.x < B) {
        const int key = k0 + threadIdx.x;
        shared.lengths[threadIdx.x] = key < N ? max(end[key] - key, 0) : 0;
    }
    const float c = scale * LOG2_E;
    float dk[OWN_ROWS][OWN] = {}, dv[OWN_ROWS][OWN] = {};
    for (int q0 = k0; q0 < furthest; q0 += BACKWARD_M) {
        const int next = q0 + BACKWARD_M;
        float p[OWN_ROWS][BACKWARD_M / TX], ds[OWN_ROWS][BACKWARD_M / TX];
        wait_for_copies<1>();
        __syncthreads();  // do is here
        inner<1>(ds, shared.own_too, shared.met_too, ty, tx);  // (8.14)
        wait_for_copies<0>();
        __syncthreads();  // the queries are here
        inner<1>(p, shared.own, shared.met, ty, tx);
#pragma unroll
        for (int j = 0; j < BACKWARD_M / TX; j++) {
            const int query = tx + TX * j;
            const float lambda = shared.lse[query] * LOG2_E, less = shared.delta[query];
#pragma unroll
            for (int i = 0; i < OWN_ROWS; i++) {
                const int row = q0 + query, key = k0 + OWN_ROWS * ty + i;
                const unsigned length = shared.lengths[OWN_ROWS * ty + i];
                const bool visible = (unsigned)(row - key) < length;             // (8.1)
                p[i][j] = visible ? power_of_2(p[i][j] * c - lambda) : 0.f;  // (8.2) (8.12)
                ds[i][j] = p[i][j] * (ds[i][j] - less);                        // (8.17)
            }
        }
        weigh(dv, p, shared.weights, shared.met_too, ty, tx);  // (8.13)
        __syncthreads();
        if (next < furthest) copy_rows(shared.met_too.row, d_o_h, C, next, N);  // [banks]
        commit_copies();
        weigh(dk, ds, shared.weights, shared.met, ty, tx);
        __syncthreads();
        if (next < furthest) {
            copy_rows(shared.met.row, q, 3 * C, next, N);  // [banks]
            copy_numbers(shared.lse, lse_h, next, N);
            copy_numbers(shared.delta, delta_h, next, N);
        }
        commit_copies();
    }
    wait_for_copies<0>();  // where no query sees the block
    float factor[OWN_ROWS], one[OWN_ROWS];
#pragma unroll
    for (int i = 0; i < OWN_ROWS; i++) factor[i] = scale, one[i] = 1.f;
    write_rows(dqkv + h * D + C, 3 * C, dk, factor, k0, N, ty, tx);  // (8.20)
    write_rows(dqkv + h * D + 2 * C, 3 * C, dv, one, k0, N, ty, tx);
}

extern "C" __global__ void __launch_bounds__(THREADS, 4)
attention_dq(
    const real* __restrict__ qkv,     // (N, 3, H, D)
    const real* __restrict__ d_o,     // (N, H, D)
    const int* __restrict__ end,      // (N,)
    const int* __restrict__ max_end,  // (T,)
    const int* __restrict__ order,    // (B,)
    const float* __restrict__ lse,    // (H, N)
    const float* __restrict__ delta,  // (H, N)
    real* __restrict__ dqkv,          // (N, 3, H, D)
    int N,
    int H,
    float scale
) {
    extern __shared__ __align__(16) unsigned char memory[];
    BackwardShared& shared = *(BackwardShared*)memory;
    const int h = blockIdx.x, q0 = order[blockIdx.y] * B;
    const int ty = threadIdx.x / TX, tx = threadIdx.x % TX;
    const unsigned C = H * D;
    const size_t head = (size_t)h * N;
    const real *q = qkv + h * D, *k = q + C, *v = k + C;
    int tile = (min(q0 + B, N) - 1) / BACKWARD_M;
    copy_rows(shared.own.row, q, 3 * C, q0, N);
    copy_rows(shared.own_too.row, d_o + h * D, C, q0, N);
    copy_rows(shared.met_too.row, v, 3 * C, tile * BACKWARD_M, N);  // [banks]
    commit_copies();
    copy_rows(shared.met.row, k, 3 * C, tile * BACKWARD_M, N);  // [banks]
    copy_numbers(shared.ends, end, tile * BACKWARD_M, N);
    commit_copies();
    const float c = scale * LOG2_E;
    float dq[OWN_ROWS][OWN] = {}, lambda[OWN_ROWS], less[OWN_ROWS];  // λ log₂ e and Δ
#pragma unroll
    for (int i = 0; i < OWN_ROWS; i++) {
        const int row = q0 + OWN_ROWS * ty + i;
        lambda[i] = row < N ? lse[head + row] * LOG2_E : 0.f;  // [sectors]
        less[i] = row < N ? delta[head + row] : 0.f;           // [sectors]
    }
    for (;;) {
        const int k0 = tile * BACKWARD_M, next = tile_before(max_end, tile, q0);
        float p[OWN_ROWS][BACKWARD_M / TX], ds[OWN_ROWS][BACKWARD_M / TX];
        wait_for_copies<1>();
        __syncthreads();  // the values are here
        inner<DQ_FOURS>(ds, shared.own_too, shared.met_too, ty, tx);  // (8.14)
        wait_for_copies<0>();
        __syncthreads();  // the keys are here
        if (next >= 0) copy_rows(shared.met_too.row, v, 3 * C, next * BACKWARD_M, N);  // [banks]
        commit_copies();
        inner<DQ_FOURS>(p, shared.own, shared.met, ty, tx);
#pragma unroll
        for (int j = 0; j < BACKWARD_M / TX; j++) {
            const int key = k0 + tx + TX * j;
            const unsigned length = max(shared.ends[tx + TX * j] - key, 0);
#pragma unroll
            for (int i = 0; i < OWN_ROWS; i++) {
                const int row = q0 + OWN_ROWS * ty + i;
                const bool visible = (unsigned)(row - key) < length;            // (8.1)
                p[i][j] = visible ? power_of_2(p[i][j] * c - lambda[i]) : 0.f;  // (8.2) (8.12)
                ds[i][j] = p[i][j] * (ds[i][j] - less[i]);                      // (8.17)
            }
        }
        weigh(dq, ds, shared.weights, shared.met, ty, tx);
        if (next < 0) break;
        __syncthreads();
        copy_rows(shared.met.row, k, 3 * C, next * BACKWARD_M, N);  // [banks]
        copy_numbers(shared.ends, end, next * BACKWARD_M, N);
        commit_copies();
        tile = next;
    }
    float factor[OWN_ROWS];
#pragma unroll
    for (int i = 0; i < OWN_ROWS; i++) factor[i] = scale;
    write_rows(dqkv + h * D, 3 * C, dq, factor, q0, N, ty, tx);  // (8.19)
}
