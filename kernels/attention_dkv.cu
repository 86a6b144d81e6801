// Attention over the token forest: the gradients of the keys and values.
//
//     row i sees row j  ⟺  j ≤ i < end[j]                         (8.1)
//     sᵢⱼ = qᵢ · kⱼ / τ                                           (8.2)
//     pᵢⱼ = exp(sᵢⱼ − λᵢ)                                         (8.12)
//     dvⱼ  = Σᵢ pᵢⱼ doᵢ                                           (8.13)
//     dpᵢⱼ = doᵢ · vⱼ                                             (8.14)
//     dsᵢₙ = pᵢₙ (dpᵢₙ − Δᵢ)                                      (8.17)
//     dkⱼ = (1/τ) Σᵢ dsᵢⱼ qᵢ                                      (8.20)
//
// A block owns B keys of one head, and the queries that see them follow each other: from the
// block's first row to the furthest end of its keys, max_end of the block.  It loops over tiles of
// them.  Δ is attention_delta's.
//
// Launch: grid (H, blocks of B rows), 64 threads; `order` names the blocks, those with most tiles
// first, so that no long one is left at the end.
//
// The tile: attention_backward.cuh.
// [banks] Filling a tile where D = 80: see attention_threads.cuh.
//
// Bytes, with S bytes a number: the least is 6·S·N·C: q, k, v, do, dk, dv.  A block reads each tile
// that sees it again, as a rule from the L2 cache: 2·S·D bytes for a row of B visible pairs, on
// which it does 8·B·D operations.  So in float, arithmetic is the limit.
#include "attention_backward.cuh"

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
    Shared& shared = *(Shared*)memory;
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
    for (int q0 = k0; q0 < furthest; q0 += MET) {
        const int next = q0 + MET;
        float p[OWN_ROWS][MET / TX], ds[OWN_ROWS][MET / TX];
        wait_for_copies<1>();
        __syncthreads();  // do is here
        inner<1>(ds, shared.own_too, shared.met_too, ty, tx);  // (8.14)
        wait_for_copies<0>();
        __syncthreads();  // the queries are here
        inner<1>(p, shared.own, shared.met, ty, tx);
#pragma unroll
        for (int j = 0; j < MET / TX; j++) {
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
