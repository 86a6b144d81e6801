// Attention over the token forest on tensor cores: the gradient of the queries.
//
//     row i sees row j  ⟺  j ≤ i < end[j]                         (8.1)
//     sᵢⱼ = qᵢ · kⱼ / τ                                           (8.2)
//     pᵢⱼ = exp(sᵢⱼ − λᵢ)                                         (8.12)
//     dpᵢⱼ = doᵢ · vⱼ                                             (8.14)
//     dsᵢₙ = pᵢₙ (dpᵢₙ − Δᵢ)                                      (8.17)
//     Δᵢ = doᵢ · oᵢ                                               (8.18)
//     dqᵢ = (1/τ) Σⱼ dsᵢⱼ kⱼ                                      (8.19)
//
// A block owns queries of one head and walks back over their tiles of keys, as attention_mma.cu
// does, by (8.21) and (8.22).  Its scores need registers for STEP keys at a time.  The sums for dp
// begin with −Δ, so (8.17) is one multiplication.  While the first copies are under way, the block
// makes Δ of its rows; attention_mma_dkv runs after this kernel and reads it.
//
// Launch: grid (H, blocks of ROWS queries), 128 threads; `order` names the blocks, those with most
// tiles first.
//
// The tile.  With 32 rows a warp (GROUPS 2) each tile that is read from shared memory is used
// twice, and up to D = 64, q and do stay in registers.  For few rows (SMALL) a warp has 16: twice
// as many blocks, for as many multiprocessors.  device/attention_blocks.py says when, with times.
// Bytes of shared memory: 2·D·(2·ROWS + 4·64), 512 for ends, 4·ROWS for Δ.
//
// Bytes: the least is 12·N·C: q, k, v, o, do, dq.  do is read once more for Δ, and each block reads
// each tile that it sees again, from the L2 cache: 4·64·D bytes for 6·ROWS·64·D operations.
// [sectors] λ and Δ of a head begin anywhere in a sector, and eight rows' Δ come from lanes apart.
#include "key_tiles.cuh"
#include "delta.cuh"
#define WARPS 4
#define THREADS (32 * WARPS)
#define GROUPS (D <= 80 && !SMALL ? 2 : 1)
#define OWN (16 * GROUPS)   // queries of a warp
#define ROWS (OWN * WARPS)  // and of a block
#define KEEP (D <= 64 && ARCHITECTURE < 1200)  // whether q and do stay in registers
#define STEP (D <= 64 && SMALL ? 64 : 32)      // keys whose scores are in registers at once

struct Shared {
    unsigned char q[ROWS * ROW_BYTES], d_o[ROWS * ROW_BYTES];
    unsigned char k_v[2][2][KEYS * ROW_BYTES];  // of two tiles, in turns
    int ends[2][KEYS];
    float delta[ROWS];
};

// Δ of the block's rows, in shared memory and in `delta`, both of which begin at the block's first
// row; as o and d_o do, with C numbers from row to row.
__device__ __forceinline__ void make_delta(Shared& shared, const real* o, const real* d_o,
                                           float* delta, unsigned C, int rows) {
#pragma unroll
    for (int r = threadIdx.x / TOGETHER; r < ROWS; r += THREADS / TOGETHER) {
        const size_t at = (size_t)r * C;
        const float sum = delta_of(o + at, d_o + at, r < rows);  // (8.18)
        if (threadIdx.x % TOGETHER == 0) {
            shared.delta[r] = sum;
            if (r < rows) delta[r] = sum;  // [sectors]
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
attention_mma_dq(
    const real* __restrict__ qkv,     // (N, 3, H, D)
    const real* __restrict__ o,       // (N, H, D)
    const real* __restrict__ d_o,     // (N, H, D)
    const int* __restrict__ end,      // (N,)
    const int* __restrict__ max_end,  // (T,)
    const int* __restrict__ min_end,  // (T,)
    const int* __restrict__ order,    // (B,)
    const float* __restrict__ lse,    // (H, N)
    float* __restrict__ delta,        // (H, N)
    real* __restrict__ dqkv,          // (N, 3, H, D)
    int N,
    int H,
    float scale
) {
    extern __shared__ __align__(1024) unsigned char memory[];
    Shared& shared = *(Shared*)memory;
    const int h = blockIdx.x, q0 = order[blockIdx.y] * ROWS, warp = threadIdx.x / 32;
    const int g = threadIdx.x % 32 / 4, first = q0 + OWN * warp;
    const unsigned C = H * D;
    const real* q = qkv + h * D;
    const size_t head = (size_t)h * N, corner = (size_t)q0 * C + h * D;
    const int last = (min(q0 + ROWS, N) - 1) / KEYS;
    copy_rows<ROWS, THREADS>(address_of(shared.q), q, 3 * C, q0, N);
    copy_rows<ROWS, THREADS>(address_of(shared.d_o), d_o + h * D, C, q0, N);
    copy_tile<THREADS>(shared, 0, q, end, C, last, N);
    commit_copies();
    TileWalk walk(max_end, last, q0);
    int turn = 0, max_now = max_end[last], min_now = min_end[last];
    make_delta(shared, o + corner, d_o + corner, delta + head + q0, C, N - q0);
    wait_for_copies<0>();
    __syncthreads();
    OwnRows<GROUPS, KEEP> queries, gradients;
    queries.begin(address_of(shared.q) + warp * OWN * ROW_BYTES);
    gradients.begin(address_of(shared.d_o) + warp * OWN * ROW_BYTES);
    const float c = scale * LOG2_E;
    float dq[GROUPS][D / 8][4], lambda[GROUPS][2], less[GROUPS][2];  // λ log₂ e and −Δ
    clear(dq);
#pragma unroll
    for (int m = 0; m < GROUPS; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int r = OWN * warp + 16 * m + 8 * half + g, row = q0 + r;
            lambda[m][half] = row < N ? lse[head + row] * LOG2_E : 0.f;  // [sectors]
            less[m][half] = -shared.delta[r];
        }
    for (;;) {
        int max_next = 0, min_next = 0;
        if (walk.next >= 0) {
            copy_tile<THREADS>(shared, turn ^ 1, q, end, C, walk.next, N);
            commit_copies();
            max_next = max_end[walk.next], min_next = min_end[walk.next];
            walk.look_ahead();
        }
        const int k0 = walk.tile * KEYS;
#pragma unroll 1
        for (int step = 0; step < KEYS; step += STEP) {
            if (!some_visible(k0 + step, max_now, first, OWN)) break;  // (8.21)
            const shared_address keys = address_of(shared.k_v[turn]) + step * ROW_BYTES;
            float p[GROUPS][STEP / 8][4], ds[GROUPS][STEP / 8][4];
            clear(p);
#pragma unroll
            for (int m = 0; m < GROUPS; m++)
#pragma unroll
                for (int n = 0; n < STEP / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) ds[m][n][i] = less[m][i / 2];
            inner<GROUPS, STEP, KEEP>(p, queries, keys);
#pragma unroll
            for (int m = 0; m < GROUPS; m++)
#pragma unroll
                for (int n = 0; n < STEP / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        p[m][n][i] = power_of_2(p[m][n][i] * c - lambda[m][i / 2]);  // (8.2) (8.12)
            if (!all_visible(k0 + step, STEP, min_now, first, OWN))  // (8.22)
                hide<GROUPS, STEP>(p, shared.ends[turn] + step, k0 + step, first, 0.f);  // (8.1)
            inner<GROUPS, STEP, KEEP>(ds, gradients, keys + KEYS * ROW_BYTES);  // (8.14)
#pragma unroll
            for (int m = 0; m < GROUPS; m++)
#pragma unroll
                for (int n = 0; n < STEP / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) ds[m][n][i] *= p[m][n][i];  // (8.17)
            weigh<GROUPS, STEP>(dq, ds, keys);
        }
        if (walk.next < 0) break;
        walk.step();
        max_now = max_next, min_now = min_next, turn ^= 1;
        wait_for_copies<0>();
        __syncthreads();
    }
    float factor[GROUPS][2];
#pragma unroll
    for (int m = 0; m < GROUPS; m++) factor[m][0] = factor[m][1] = scale;
    unsigned char* own = shared.q + warp * OWN * ROW_BYTES;
    write_rows<GROUPS>(dqkv + h * D, 3 * C, dq, factor, own, first, N);  // (8.19)
}
