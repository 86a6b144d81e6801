// Reductions over a block: its warps exchange their results through shared memory.
#include "reduce.cuh"

// The sum over a block of WARPS full warps, given to every thread.  `room` has a place for each warp; it
// may be used again only behind another barrier of the block.
template <int WARPS> __device__ __forceinline__ float block_sum(float x, float* room) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    x = lanes_sum<32>(x);
    if (lane == 0) room[warp] = x;
    __syncthreads();
    return lanes_sum<32>(lane < WARPS ? room[lane] : 0.f);
}
