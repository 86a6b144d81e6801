// Δ of attention: the product of a row of o and a row of do, which some lanes make together.
#include "dtype.cuh"
#include "reduce.cuh"
#define TOGETHER (D / WIDTH >= 8 ? 8 : 4)  // lanes that make a row's Δ

// Of rows that begin at o and d_o; 0 where the row does not exist.  All lanes of a warp call this,
// TOGETHER neighbours with the same row.
__device__ __forceinline__ float delta_of(const real* o, const real* d_o, bool exists) {
    float sum = 0.f;
    if (exists)
        for (int k = threadIdx.x % TOGETHER; k < D / WIDTH; k += TOGETHER) {
            float x[WIDTH], y[WIDTH];
            load16(x, o + WIDTH * k);
            load16(y, d_o + WIDTH * k);
#pragma unroll
            for (int i = 0; i < WIDTH; i++) sum += x[i] * y[i];
        }
    return warp_sum<TOGETHER>(sum);
}
