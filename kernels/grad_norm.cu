// The global norm of the gradient, in two launches of a fixed shape.
//
//     ‖g‖ = √( Σ g² ), summed over all parameters                 (10.1)
//
// squares      BLOCKS blocks of 256 threads in a grid-stride loop over the flat array.  Each block
//              writes one partial sum.
// global_norm  one block: adds the partial sums, takes the root.
//
// Which thread adds what depends on P alone, not on how the blocks are scheduled, and there are no
// atomics: the same gradient gives the same bits.
//
// Bytes: reads g once, 4·P, which is the least.  Shared memory: 8 numbers, one a warp.
#include "dtype.cuh"
#include "block.cuh"
#define THREADS 256
#define BLOCKS 512  // of `squares`: several waves of blocks on any GPU

extern "C" __global__ void __launch_bounds__(THREADS)
squares(
    const float* __restrict__ g,  // (P,)
    float* __restrict__ partial,  // (R,)
    long long P
) {
    __shared__ float smem[THREADS / 32];
    const long long first = ((long long)blockIdx.x * THREADS + threadIdx.x) * 4;
    float sum = 0.f;
    for (long long i = first; i + 4 <= P; i += (long long)BLOCKS * THREADS * 4) {
        const float4 v = load4(g + i);
        sum += v.x * v.x + v.y * v.y + (v.z * v.z + v.w * v.w);  // (10.1)
    }
    const long long rest = P / 4 * 4 + threadIdx.x;  // at most three, after the last four
    if (blockIdx.x == 0 && rest < P) sum += g[rest] * g[rest];  // (10.1)
    sum = block_sum<THREADS / 32>(sum, smem);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(THREADS)
global_norm(
    const float* __restrict__ partial,  // (R,)
    float* __restrict__ result          // (1,)
) {
    __shared__ float smem[THREADS / 32];
    float sum = 0.f;
    for (int i = threadIdx.x; i < BLOCKS; i += THREADS) sum += partial[i];
    sum = block_sum<THREADS / 32>(sum, smem);
    if (threadIdx.x == 0) result[0] = sqrtf(sum);  // (10.1)
}
