// Linear map of one row, and its product with a table: a vector times a matrix.
//
//     yₙₖ = Σᵢ xₙᵢ Wᵢₖ + bₖ                                       (2.1)
//     yₙₖ = residualₙₖ + Σᵢ xₙᵢ Wᵢₖ + bₖ                          (2.5)
//     ℓₙᵥ  = xₙ · wte[v]                                          (9.1)
//
// One sequence that is decoded has one row.  Its products do two operations for each weight that
// they read, so all that counts is that many threads read weights at the same time.  Libraries cut
// products into tiles of rows and columns, and keep too few threads busy with a row alone.
//
// linear_row   (2.1) and (2.5).  One block for 16 neighbouring columns of W.  Its lanes read 16
//              bytes each, and together 16 numbers of each of 1,024 rows of W before the first of
//              them is needed.  A thread sums its columns; the lanes of a warp merge by shuffles,
//              the warps through shared memory, in a fixed order.
// logits_row   (9.1).  One warp for four rows of the table, whose numbers are neighbours: the lanes
//              read 16 bytes of each, and multiply them with the same 16 bytes of x.
//
// Launch: linear_row has the grid (K / 16,) and 1,024 threads: 48 blocks where K = 768.  Each has
// 64 KiB of float under way, since 48 of a GPU's multiprocessors must ask for as much as all of
// them can get.  logits_row has the grid (⌈V / 128⌉,) and 1,024 threads, too.
// K must be a multiple of 16, and C numbers a whole number of accesses of 16 bytes: then every
// tensor of a GPT-2 begins at a multiple of 16 bytes, too.
// Bytes, with S bytes a number: S·C·K, every weight once, which is the least.  x is read by each
// block, from the caches.
#include "dtype.cuh"
#include "reduce.cuh"
#define THREADS 1024
#define WARPS (THREADS / 32)
#define COLUMNS 16               // of a block
#define LANES (COLUMNS / WIDTH)  // that read them
#define AT_ONCE (THREADS / LANES)  // rows of W that a block reads together
#define TURNS LANES  // such groups are under way: 1,024 rows
#define ROWS 4  // of the table, of a warp

extern "C" __global__ void __launch_bounds__(THREADS)
linear_row(
    const real* __restrict__ x,         // (1, C)
    const real* __restrict__ w,         // (C, K)
    const real* __restrict__ b,         // (K,), optional
    const real* __restrict__ residual,  // (1, K), optional
    real* __restrict__ y,               // (1, K)
    int C,
    int K
) {
    __shared__ float sum_of_warp[WARPS][COLUMNS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int own = threadIdx.x % LANES * WIDTH;  // the thread's columns among the block's
    const real* column = w + blockIdx.x * COLUMNS + own;
    float sums[WIDTH] = {};
    for (int first = threadIdx.x / LANES; first < C; first += AT_ONCE * TURNS) {
        float weights[TURNS][WIDTH], x_c[TURNS];
#pragma unroll
        for (int turn = 0; turn < TURNS; turn++) {
            const int c = first + turn * AT_ONCE, within = c < C ? c : first;
            load16(weights[turn], column + (size_t)within * K);
            x_c[turn] = c < C ? to_float(x[within]) : 0.f;  // a row behind the last counts nothing
        }
#pragma unroll
        for (int turn = 0; turn < TURNS; turn++)
#pragma unroll
            for (int i = 0; i < WIDTH; i++) sums[i] += x_c[turn] * weights[turn][i];  // (2.1)
    }
#pragma unroll
    for (int i = 0; i < WIDTH; i++) {
        for (int away = 16; away >= LANES; away /= 2)
            sums[i] += __shfl_xor_sync(ALL_LANES, sums[i], away);
        if (lane < LANES) sum_of_warp[warp][own + i] = sums[i];
    }
    __syncthreads();
    if (threadIdx.x >= COLUMNS) return;
    const int k = blockIdx.x * COLUMNS + threadIdx.x;
    float sum = b ? to_float(b[k]) : 0.f;
    for (int i = 0; i < WARPS; i++) sum += sum_of_warp[i][threadIdx.x];
    store(&y[k], residual ? to_float(residual[k]) + sum : sum);  // (2.5)
}

extern "C" __global__ void __launch_bounds__(THREADS)
logits_row(
    const real* __restrict__ x,      // (1, C)
    const real* __restrict__ table,  // (V, C)
    real* __restrict__ logits,       // (1, W)
    int V,
    int C
) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int first = (blockIdx.x * WARPS + warp) * ROWS;
    float sums[ROWS] = {};
#pragma unroll 1
    for (int c = lane * WIDTH; c < C; c += 32 * WIDTH) {
        float own[WIDTH];
        load16(own, x + c);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (first + r >= V) continue;
            float weights[WIDTH];
            load16(weights, table + (size_t)(first + r) * C + c);
#pragma unroll
            for (int i = 0; i < WIDTH; i++) sums[r] += own[i] * weights[i];  // (9.1)
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const float sum = warp_sum<32>(sums[r]);
        if (lane == r && first + r < V) store(&logits[first + r], sum);
    }
}
