// Sums over the rows of a matrix: the gradient of a linear map's bias.
//
//     dbₖ = Σₙ dyₙₖ                                               (2.4)
//
// column_sums    grid (⌈K / (32·WIDTH)⌉, R): a block has 512 bytes of each row and a run of the
//                rows.  A lane has WIDTH neighbours of every eighth row, four rows under way at
//                once; the eight warps' sums are added in order, a row of `partial` a block.
// column_total   adds the R rows of `partial`, 32 columns a block of 16 warps, each with every 16th
//                row, then the warps' sums in order.  The first A sums are written over `first` or
//                added to it, what is left to `second`.
// No atomics: the same bits each time.
//
// Bytes, with S bytes a number: S·N·K read once, the least, and
// 8·R·K of partial sums, written and read.  R is as large as it must be for all multiprocessors to
// have 1,024 threads, each with 64 bytes on the way: enough for memory's rate times its latency.
#include "columns.cuh"
#define THREADS 256
#define WARPS (THREADS / 32)
#define AT_ONCE 4  // rows of a warp
#define TOTAL_WARPS 16

extern "C" __global__ void __launch_bounds__(THREADS)
column_sums(
    const real* __restrict__ dy,   // (N, K)
    float* __restrict__ partial,  // (R, K)
    int N,
    int K,
    int R
) {
    __shared__ __align__(16) float room[WARPS][ROOM];
    const int rows = (N + R - 1) / R, first = blockIdx.y * rows, last = min(first + rows, N);
    float sum[WIDTH] = {};
    for (int done = 0; done < rows; done += AT_ONCE * WARPS) {
        const int n = first + done + threadIdx.x / 32;
        uint4 part[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            part[i] = make_uint4(0, 0, 0, 0);
            if (n + i * WARPS < last)
                part[i] = read_part(dy + (size_t)(n + i * WARPS) * K, blockIdx.x, K);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            float d[WIDTH];
            unpack(d, part[i], real());
#pragma unroll
            for (int j = 0; j < WIDTH; j++) sum[j] += d[j];  // (2.4)
        }
    }
    add_sets<WARPS, 1>(room, sum, partial + (size_t)blockIdx.y * K, blockIdx.x, K);
}

extern "C" __global__ void __launch_bounds__(32 * TOTAL_WARPS)
column_total(
    const float* __restrict__ partial,  // (R, K)
    float* __restrict__ first,          // (A,)
    float* __restrict__ second,         // (B,), optional
    int R,
    int K,
    int A,
    int add_first,
    int add_second
) {
    __shared__ float room[TOTAL_WARPS][32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, k = blockIdx.x * 32 + lane;
    float sum = 0.f;
    if (k < K)
#pragma unroll 8
        for (int r = warp; r < R; r += TOTAL_WARPS) sum += partial[(size_t)r * K + k];  // (2.4)
    room[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || k >= K) return;
    sum = 0.f;
#pragma unroll
    for (int w = 0; w < TOTAL_WARPS; w++) sum += room[w][lane];
    float* total = k < A ? first + k : second + (k - A);
    *total = (k < A ? add_first : add_second) ? *total + sum : sum;
}
