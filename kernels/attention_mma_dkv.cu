// Attention over the token forest on tensor cores: the gradients of the keys and values.
//
//     row i sees row j  ⟺  j ≤ i < end[j]                         (8.1)
//     sᵢⱼ = qᵢ · kⱼ / τ                                           (8.2)
//     pᵢⱼ = exp(sᵢⱼ − λᵢ)                                         (8.12)
//     dvⱼ  = Σᵢ pᵢⱼ doᵢ                                           (8.13)
//     dpᵢⱼ = doᵢ · vⱼ                                             (8.14)
//     dsᵢₙ = pᵢₙ (dpᵢₙ − Δᵢ)                                      (8.17)
//     dkⱼ = (1/τ) Σᵢ dsᵢⱼ qᵢ                                      (8.20)
//
// A block owns keys of one head, and the queries that see them follow each other: from the block's
// first row to the furthest end of its keys.  It loops over STAGE of them at a time; while one
// stage is computed, the next one is copied.  By (8.21) a warp leaves out queries, and by (8.22) it
// knows where it need not compare ends.  Scores are transposed, rows are keys, so p and ds are left
// factors of the sums over i without leaving the registers, and λ and Δ belong to columns.  Δ is
// there already: attention_mma_dq made it, or attention_delta.
//
// With STORED, ds is written to memory as well (stored_ds.cuh), also the zeros where no query of a
// step sees a warp's keys.  Then attention_mma_dq_stored has one product to make, and not three.
//
// Launch: grid (H, blocks of ROWS keys), THREADS threads; `order` names the blocks, those with most
// queries first.
//
// The tile.  dk and dv of 32 keys of 64 features are 128 registers of a thread, and leave those for
// the scores of 32 queries.  Two such warps make a block, four blocks fill a multiprocessor: on an
// H200 2 to 9 % faster than two blocks of four warps.  Longer heads have 16 keys a warp, four warps
// a block.  For few rows (SMALL) a block has the keys of one warp or two, which SHARE warps share,
// each with its own queries of a stage; at the end their sums are added in the order of the warps.
// device/attention_blocks.py says when, with times.
// Bytes of shared memory: 2·D·(2·ROWS + 4·STAGE), 16·STAGE for λ and Δ, 4·ROWS for lengths.
//
// Bytes: the least is 12·N·C: q, k, v, do, dk, dv.  Each block reads each stage that sees it again,
// from the L2 cache: (4·D + 8)·STAGE bytes for 8·ROWS·STAGE·D operations.  STORED writes 2 bytes
// more for each query and key of a slab.
#include "attention_tile.cuh"
#include "stored_ds.cuh"
#ifndef STORED
#define STORED 0  // 1: writes ds to memory
#endif
#define SIDE (D <= 64 ? (SMALL ? 1 : 2) : SMALL ? 2 : 4)  // warps side by side over keys
#define SHARE (SMALL ? 4 / SIDE : 1)                      // warps that share keys
#define THREADS (32 * SIDE * SHARE)
#define GROUPS (D <= 64 ? 2 : 1)
#define OWN (16 * GROUPS)  // keys of a warp
#define ROWS (OWN * SIDE)  // and of a block
// Queries whose scores are in registers, and queries that are copied at once.
#define STEP (ARCHITECTURE >= (SMALL ? 1000 : 1200) ? 16 : 32)
#define STAGE (SMALL ? 32 * SHARE : D == 128 ? 32 : 64)
#define BLOCKS (D <= 64 && !SMALL ? 4 : 2)

struct Shared {
    unsigned char k[ROWS * ROW_BYTES], v[ROWS * ROW_BYTES];
    unsigned char q_do[2][2][STAGE * ROW_BYTES];  // of two stages, in turns
    float lse_delta[2][2][STAGE];
    int lengths[ROWS];
};

// Where the sums of a warp pass through shared memory: each number of the 32 lanes side by side.
#define NUMBERS (GROUPS * D / 8 * 4)
struct Exchange {
    float of[SHARE - 1 + (SHARE == 1)][SIDE][NUMBERS][32];
};

// Send copies of a stage of queries; q, d_o, lse and delta point to row 0 of a head.
__device__ __forceinline__ void copy_stage(Shared& shared, int turn, const real* q, const real* d_o,
                                           const float* lse, const float* delta, unsigned C, int q0,
                                           int N) {
    const shared_address to = address_of(shared.q_do[turn]);
    const shared_address numbers = address_of(shared.lse_delta[turn]);
    copy_rows<STAGE, THREADS>(to, q, 3 * C, q0, N);
    copy_rows<STAGE, THREADS>(to + STAGE * ROW_BYTES, d_o, C, q0, N);
    copy_numbers<STAGE, THREADS>(numbers, lse, q0, N);
    copy_numbers<STAGE, THREADS>(numbers + 4 * STAGE, delta, q0, N);
}

// Over the warp, of whole numbers.
__device__ __forceinline__ int warp_largest(int x) {
    for (int away = 16; away; away /= 2) x = max(x, __shfl_xor_sync(ALL_LANES, x, away));
    return x;
}
__device__ __forceinline__ int warp_smallest(int x) {
    for (int away = 16; away; away /= 2) x = min(x, __shfl_xor_sync(ALL_LANES, x, away));
    return x;
}

// Put 0 where one of the warp's keys, from `first_key` on, is not seen by a query, from `first_row`
// on.  `lengths` has of each key how many queries see it: those from its own row on.
__device__ __forceinline__ void hide_queries(float (&p)[GROUPS][STEP / 8][4], const int* lengths,
                                             int first_key, int first_row) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < GROUPS; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int key = 16 * m + 8 * half + g;
            const unsigned length = lengths[key];
#pragma unroll
            for (int n = 0; n < STEP / 8; n++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    const int row = first_row - first_key + 8 * n + 2 * t + j;
                    // key ≤ row < end  ⟺  0 ≤ row − key < length
                    if (!((unsigned)(row - key) < length)) p[m][n][2 * half + j] = 0.f;
                }
        }
}

// The warps that share keys add their sums up, in order; the first of them has the result.
__device__ __forceinline__ void add_up(float (&sum)[GROUPS][D / 8][4], Exchange& exchange, int side,
                                       int share) {
    const int lane = threadIdx.x % 32;
    __syncthreads();
#pragma unroll
    for (int e = 0; share && e < NUMBERS; e++)
        exchange.of[share - 1][side][e][lane] = sum[e / (D / 2)][e / 4 % (D / 8)][e % 4];
    __syncthreads();
#pragma unroll
    for (int other = 0; !share && other < SHARE - 1; other++)
#pragma unroll
        for (int e = 0; e < NUMBERS; e++)
            sum[e / (D / 2)][e / 4 % (D / 8)][e % 4] += exchange.of[other][side][e][lane];
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
attention_mma_dkv(
    const real* __restrict__ qkv,    // (N, 3, H, D)
    const real* __restrict__ d_o,    // (N, H, D)
    const int* __restrict__ end,     // (N,)
    const int* __restrict__ order,   // (B,)
    const float* __restrict__ lse,   // (H, N)
    const float* __restrict__ delta,  // (H, N)
    real* __restrict__ dqkv,         // (N, 3, H, D)
    const int* __restrict__ start,   // (T,), optional
    real* __restrict__ ds_stored,    // (S, H, 2048), optional
    int N,
    int H,
    float scale
) {
    extern __shared__ __align__(1024) unsigned char memory[];
    Shared& shared = *(Shared*)memory;
    const int h = blockIdx.x, k0 = order[blockIdx.y] * ROWS, lane = threadIdx.x % 32;
    const int t = threadIdx.x % 4, warp = threadIdx.x / 32;
    const int side = warp % SIDE, share = warp / SIDE, first = k0 + OWN * side;
    const unsigned C = H * D;
    const real *q = qkv + h * D, *d_o_h = d_o + h * D;
    const float *lse_h = lse + (size_t)h * N, *delta_h = delta + (size_t)h * N;
    copy_rows<ROWS, THREADS>(address_of(shared.k), q + C, 3 * C, k0, N);
    copy_rows<ROWS, THREADS>(address_of(shared.v), q + 2 * C, 3 * C, k0, N);
    copy_stage(shared, 0, q, d_o_h, lse_h, delta_h, C, k0, N);
    commit_copies();
    int furthest = 0;  // the largest end of the block's keys
#pragma unroll
    for (int r = lane; r < ROWS; r += 32)
        if (k0 + r < N) furthest = max(furthest, end[k0 + r]);
    furthest = warp_largest(furthest);
    const int own_end = lane < OWN && first + lane < N ? end[first + lane] : 0;
    const int max_end = warp_largest(own_end);
    const int min_end = warp_smallest(lane < OWN ? own_end : 0x7fffffff);
    if (threadIdx.x < ROWS) {
        const int key = k0 + threadIdx.x;
        shared.lengths[threadIdx.x] = key < N ? max(end[key] - key, 0) : 0;
    }
    OwnRows<GROUPS, false> keys, values;
    keys.begin(address_of(shared.k) + side * OWN * ROW_BYTES);
    values.begin(address_of(shared.v) + side * OWN * ROW_BYTES);
    real* const slabs = STORED ? ds_stored + slabs_at(start, k0, h, H) : 0;
    const float c = scale * LOG2_E;
    float dk[GROUPS][D / 8][4], dv[GROUPS][D / 8][4];
    clear(dk);
    clear(dv);
    int turn = 0;
    for (int q0 = k0; q0 < furthest; q0 += STAGE, turn ^= 1) {
        wait_for_copies<0>();
        __syncthreads();
        if (q0 + STAGE < furthest) {
            copy_stage(shared, turn ^ 1, q, d_o_h, lse_h, delta_h, C, q0 + STAGE, N);
            commit_copies();
        }
#pragma unroll 1
        for (int step = share * STEP; step < STAGE; step += SHARE * STEP) {
            const int row = q0 + step;
            float p[GROUPS][STEP / 8][4], ds[GROUPS][STEP / 8][4];
            clear(p);
            if (!some_visible(first, max_end, row, STEP)) {  // (8.21)
                if (STORED && has_slab(row, furthest))
                    store_pieces<GROUPS, STEP>(slabs + piece_at(row - k0, OWN * side / 16, H), p);
                continue;
            }
            const shared_address queries = address_of(shared.q_do[turn]) + step * ROW_BYTES;
            const shared_address gradients = queries + STAGE * ROW_BYTES;
            const float* lse_rows = shared.lse_delta[turn][0] + step + 2 * t;
            const float* delta_rows = shared.lse_delta[turn][1] + step + 2 * t;
            inner<GROUPS, STEP, false>(p, keys, queries);
#pragma unroll
            for (int n = 0; n < STEP / 8; n++) {
                const float2 less = *(const float2*)(delta_rows + 8 * n);
#pragma unroll
                for (int m = 0; m < GROUPS; m++)
#pragma unroll
                    for (int i = 0; i < 4; i++) ds[m][n][i] = -(i % 2 ? less.y : less.x);
            }
#pragma unroll
            for (int n = 0; n < STEP / 8; n++) {
                const float2 lambda = *(const float2*)(lse_rows + 8 * n);
                const float x = lambda.x * LOG2_E, y = lambda.y * LOG2_E;
#pragma unroll
                for (int m = 0; m < GROUPS; m++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        p[m][n][i] = power_of_2(p[m][n][i] * c - (i % 2 ? y : x));  // (8.2) (8.12)
            }
            if (!all_visible(first, OWN, min_end, row, STEP))  // (8.22)
                hide_queries(p, shared.lengths + OWN * side, first, row);  // (8.1)
            weigh<GROUPS, STEP>(dv, p, gradients);                         // (8.13)
            inner<GROUPS, STEP, false>(ds, values, gradients);             // (8.14)
#pragma unroll
            for (int m = 0; m < GROUPS; m++)
#pragma unroll
                for (int n = 0; n < STEP / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) ds[m][n][i] *= p[m][n][i];  // (8.17)
            if (STORED)
                store_pieces<GROUPS, STEP>(slabs + piece_at(row - k0, OWN * side / 16, H), ds);
            weigh<GROUPS, STEP>(dk, ds, queries);
        }
    }
    wait_for_copies<0>();  // where no query sees the block
    __syncthreads();
    if (SHARE > 1) {
        add_up(dk, *(Exchange*)memory, side, share);
        add_up(dv, *(Exchange*)memory, side, share);
        __syncthreads();
        if (share) return;
    }
    float factor[GROUPS][2], one[GROUPS][2];
#pragma unroll
    for (int m = 0; m < GROUPS; m++)
        factor[m][0] = factor[m][1] = scale, one[m][0] = one[m][1] = 1.f;
    unsigned char* own = shared.k + side * OWN * ROW_BYTES;
    write_rows<GROUPS>(dqkv + h * D + C, 3 * C, dk, factor, own, first, N);  // (8.20)
    write_rows<GROUPS>(dqkv + h * D + 2 * C, 3 * C, dv, one, own, first, N);
}
