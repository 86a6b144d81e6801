// Reductions over a block: its warps exchange their results through shared memory.
#include "reduce.cuh"

// The sum over a block of WARPS full warps, returned to every thread.  `smem` has one number for
// each warp; another barrier of the block must come before it is used again.
template <int WARPS> __device__ __forceinline__ float block_sum(float x, float* smem) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    x = warp_sum<32>(x);
    if (lane == 0) smem[warp] = x;
    __syncthreads();
    return warp_sum<32>(lane < WARPS ? smem[lane] : 0.f);
}
