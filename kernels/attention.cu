// Attention over the token forest: forward, without a matrix of pairs.
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
//
// end[j] is the row where the subtree of row j's segment ends.  Rows are cut into tiles of M.
// max_end[t] is the largest end of tile t's keys: queries from q₀ on see something of it only if
// max_end[t] > q₀.  Tiles that do not see each other are never loaded, so a forest of many short
// examples costs what its visible tiles cost.  (FlashMask, Wang et al. 2024, stores the same two
// arrays for causal masks, as LTS and its maxima over blocks.)  The host computes max_end,
// device/attention_blocks.py.
//
// A block owns B queries of one head and walks back over the tiles of keys that they see, from
// its own on: (8.5) to (8.9), then o and λ.  A row that sees nothing, not even itself
// (end[i] ≤ i), gets o = 0 and λ = −∞, and in the backward pass no gradient.
// With c = log₂(e)/τ, exp(s − m) is 2^(c q·k − c m): one product with a sum, and one instruction.
//
// Launch: grid (H, blocks of B rows), 64 threads; `order` names the blocks, those with most tiles
// first, so that no long one is left at the end.
//
// The tile: attention_threads.cuh, with M = 64 met rows, 32 where D > 64.
// [banks] Filling a tile where D = 80: see attention_threads.cuh.
//
// Bytes, with S bytes a number: the least is 4·S·N·C (q, k, v, o).  A block reads each visible tile
// again, as a rule from the L2 cache: 2·S·D bytes for a row of B visible pairs, on which it does
// 4·B·D operations.  So in float, arithmetic is the limit.
// [sectors] One lane of TX writes λ, 4 bytes in every 32, once after the loop: 2 % of the sectors.
#include "attention_threads.cuh"
#include "forest.cuh"
#define MET (D <= 64 ? 64 : 32)  // M: rows of a met tile

struct Shared {
    Rows q;
    Tile<MET> k, v;
    Weights weights;
    int ends[2][MET];  // of two tiles, in turns
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
    Shared& shared = *(Shared*)memory;
    const int h = blockIdx.x, q0 = order[blockIdx.y] * B;
    const int ty = threadIdx.x / TX, tx = threadIdx.x % TX;
    const unsigned C = H * D;
    const real *q = qkv + h * D, *k = q + C, *v = k + C;
    int tile = (min(q0 + B, N) - 1) / MET, turn = 0;
    copy_rows(shared.q.row, q, 3 * C, q0, N);
    copy_rows(shared.k.row, k, 3 * C, tile * MET, N);  // [banks]
    copy_numbers(shared.ends[0], end, tile * MET, N);
    commit_copies();
    copy_rows(shared.v.row, v, 3 * C, tile * MET, N);  // [banks]
    commit_copies();
    const float c = scale * LOG2_E;
    float m[OWN_ROWS], total[OWN_ROWS] = {}, a[OWN_ROWS][OWN] = {};  // m without the factor 1/τ
#pragma unroll
    for (int i = 0; i < OWN_ROWS; i++) m[i] = MINUS_INFINITY;
    for (;;) {
        const int k0 = tile * MET, next = tile_before(max_end, tile, q0);
        wait_for_copies<1>();
        __syncthreads();  // the keys are here
        float s[OWN_ROWS][MET / TX];
        inner<1>(s, shared.q, shared.k, ty, tx);  // (8.2)
        __syncthreads();
        if (next >= 0) {
            copy_rows(shared.k.row, k, 3 * C, next * MET, N);  // [banks]
            copy_numbers(shared.ends[turn ^ 1], end, next * MET, N);
        }
        commit_copies();
#pragma unroll
        for (int j = 0; j < MET / TX; j++) {
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
            for (int j = 0; j < MET / TX; j++) m_new = fmaxf(m_new, s[i][j]);
            m_new = warp_max<TX>(m_new);                                   // (8.5)
            const float base = m_new == MINUS_INFINITY ? 0.f : m_new * c;  // nothing seen yet
            const float alpha = power_of_2(m[i] * c - base);               // (8.6)
#pragma unroll
            for (int j = 0; j < MET / TX; j++)
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
        copy_rows(shared.v.row, v, 3 * C, next * MET, N);  // [banks]
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
