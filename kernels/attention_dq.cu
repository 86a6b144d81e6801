// Attention over the token forest: the gradient of the queries.
//
//     row i sees row j  ⟺  j ≤ i < end[j]                         (8.1)
//     sᵢⱼ = qᵢ · kⱼ / τ                                           (8.2)
//     pᵢⱼ = exp(sᵢⱼ − λᵢ)                                         (8.12)
//     dpᵢⱼ = doᵢ · vⱼ                                             (8.14)
//     dsᵢₙ = pᵢₙ (dpᵢₙ − Δᵢ)                                      (8.17)
//     dqᵢ = (1/τ) Σⱼ dsᵢⱼ kⱼ                                      (8.19)
//
// A block owns B queries of one head and walks back over their tiles of keys, as attention_forward
// does.  Δ is attention_delta's, which runs before.
//
// dq has its own kernel, which recomputes the scores once more.  In one kernel with dk and dv,
// several blocks would add to the same rows of dq.  That needs atomics, and with them the order of
// additions, and so the bits of the result, differ from run to run.
//
// Launch: grid (H, blocks of B rows), 64 threads; `order` names the blocks, those
// with most tiles first, so that no long one is left at the end.
//
// The tile: attention_backward.cuh.  The compiler unrolls the loop of the scores over the features
// twice where D = 64: on an H200 579 µs, not 602 (8 sequences of 1,023 tokens, 12 heads).  In
// attention_dkv registers would spill.
// [banks] Filling a tile where D = 80: see attention_threads.cuh.
//
// Bytes, with S bytes a number: the least is 5·S·N·C: q, k, v, do, dq.
// A block reads each visible tile again, as a rule from the L2 cache: 2·S·D bytes for a row of B
// visible pairs, on which it does 6·B·D operations.  So in float, arithmetic is the limit.
// [sectors] dq reads λ and Δ of its rows, 4 bytes in every 32, once.
#include "attention_backward.cuh"
#include "forest.cuh"
#define FOURS (D == 64 ? 2 : 1)  // 4 features each, in a pass of the inner products

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
    Shared& shared = *(Shared*)memory;
    const int h = blockIdx.x, q0 = order[blockIdx.y] * B;
    const int ty = threadIdx.x / TX, tx = threadIdx.x % TX;
    const unsigned C = H * D;
    const size_t head = (size_t)h * N;
    const real *q = qkv + h * D, *k = q + C, *v = k + C;
    int tile = (min(q0 + B, N) - 1) / MET;
    copy_rows(shared.own.row, q, 3 * C, q0, N);
    copy_rows(shared.own_too.row, d_o + h * D, C, q0, N);
    copy_rows(shared.met_too.row, v, 3 * C, tile * MET, N);  // [banks]
    commit_copies();
    copy_rows(shared.met.row, k, 3 * C, tile * MET, N);  // [banks]
    copy_numbers(shared.ends, end, tile * MET, N);
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
        const int k0 = tile * MET, next = tile_before(max_end, tile, q0);
        float p[OWN_ROWS][MET / TX], ds[OWN_ROWS][MET / TX];
        wait_for_copies<1>();
        __syncthreads();  // the values are here
        inner<FOURS>(ds, shared.own_too, shared.met_too, ty, tx);  // (8.14)
        wait_for_copies<0>();
        __syncthreads();  // the keys are here
        if (next >= 0) copy_rows(shared.met_too.row, v, 3 * C, next * MET, N);  // [banks]
        commit_copies();
        inner<FOURS>(p, shared.own, shared.met, ty, tx);
#pragma unroll
        for (int j = 0; j < MET / TX; j++) {
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
        copy_rows(shared.met.row, k, 3 * C, next * MET, N);  // [banks]
        copy_numbers(shared.ends, end, next * MET, N);
        commit_copies();
        tile = next;
    }
    float factor[OWN_ROWS];
#pragma unroll
    for (int i = 0; i < OWN_ROWS; i++) factor[i] = scale;
    write_rows(dqkv + h * D, 3 * C, dq, factor, q0, N, ty, tx);  // (8.19)
}
