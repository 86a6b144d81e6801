// Attention over the token forest: Δ, which both gradients of scores need.
//
//     Δᵢ = doᵢ · oᵢ                                               (8.18)
//
// It runs before the kernels that read it.  attention_mma_dq makes its own: it has do already, and
// a launch is saved.
//
// Launch: grid (H, blocks of ROWS rows), THREADS threads.  Neighbouring blocks read neighbouring
// heads of the same rows.  TOGETHER lanes have a row, 16 bytes a lane at a time.  Lanes beyond the
// last row read it, too, and write nothing: without a branch, a thread begins to read all of its
// rows at once.
//
// Bytes: the least is 2·S·N·C for o and do, with S bytes a number, and 4·N·H for Δ.
// [sectors] A warp writes four or eight rows' Δ at once, and those of a head begin anywhere.
#ifndef D
#define D 64  // features of a head: 32, 64, 80 or 128
#endif
#include "delta.cuh"
#define THREADS 128
#define ROWS 64

extern "C" __global__ void __launch_bounds__(THREADS)
attention_delta(
    const real* __restrict__ o,    // (N, H, D)
    const real* __restrict__ d_o,  // (N, H, D)
    float* __restrict__ delta,     // (H, N)
    int N,
    int H
) {
    const int h = blockIdx.x, first = blockIdx.y * ROWS + threadIdx.x / TOGETHER;
#pragma unroll
    for (int i = 0; i < ROWS; i += THREADS / TOGETHER) {
        const int row = first + i;
        const size_t at = ((size_t)min(row, N - 1) * H + h) * D;
        const float sum = delta_of(o + at, d_o + at, true);  // (8.18)
        if (threadIdx.x % TOGETHER == 0 && row < N) delta[(size_t)h * N + row] = sum;  // [sectors]
    }
}
