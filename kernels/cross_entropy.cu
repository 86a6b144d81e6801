// Cross-entropy: the loss of a chunk of logits, and its gradient in their place.
//
//     λₙ   = ln Σᵥ exp(ℓₙᵥ)                                       (9.2)
//     nllₙ = λₙ − ℓₙₜ                                             (9.3)
//     pₙᵥ  = exp(ℓₙᵥ − λₙ)                                        (9.5)
//     dℓₙᵥ = wₙ (pₙᵥ − δᵥₜ)                                       (9.7)
//
// One block of 512 threads per triple.  The first loop over the row computes λ, the second one
// overwrites the logits by the gradient.  In the first each thread keeps its largest logit so far,
// m, and Σ exp(ℓ − m), as attention does, and merges two such pairs:
//     m′ = max(m, maxⱼ sᵢⱼ)                                       (8.5)
//     α  = exp(m − m′)                                            (8.6)
//     eᵢⱼ = exp(sᵢⱼ − m′)                                         (8.7)
//     ℓ′ = α ℓ + Σⱼ eᵢⱼ                                           (8.8)
// so the row is read once for λ, not twice.
//
// A row of logits may be padded from V to W numbers, so that rows begin at aligned addresses and
// matrix products with them are faster.  The padding is not read, and its gradient is exactly 0.
//
// Bytes, with S bytes a number: reads the logits twice and writes them once, 3·S·V a triple, the
// second time mostly from the L2 cache; the least is 2·S·V.  Without the gradient, S·V.
// [sectors] Rows of an odd V begin anywhere in a sector.  A warp's 32 numbers of 16 bits are then
// in three sectors, not in two; the next warp needs one of them again and gets it from the L1
// cache. Shared memory: two numbers a warp.
#include "dtype.cuh"
#include "block.cuh"
#define THREADS 512
#define WARPS (THREADS / 32)

// exp(x − m); 0 for x = −∞, even if m is −∞, too, as in a thread that has not seen a logit yet.
__device__ __forceinline__ float exp_below(float x, float m) {
    return x == MINUS_INFINITY ? 0.f : expf(x - m);  // (8.6) (8.7)
}

// The maximum over a block, like block_sum.
__device__ __forceinline__ float block_max(float x, float* smem) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    x = warp_max<32>(x);
    if (lane == 0) smem[warp] = x;
    __syncthreads();
    return warp_max<32>(lane < WARPS ? smem[lane] : MINUS_INFINITY);
}

// If `gradient` is 0 the logits are only read.
extern "C" __global__ void __launch_bounds__(THREADS)
cross_entropy(
    real* __restrict__ logits,          // (M, W)
    const int* __restrict__ targets,    // (M,)
    const float* __restrict__ weights,  // (M,)
    float* __restrict__ nll,            // (M,)
    int V,
    int W,
    int gradient
) {
    __shared__ float maxima[WARPS], sums[WARPS];
    real* row = logits + (size_t)blockIdx.x * W;
    const int target = targets[blockIdx.x];
    float m = MINUS_INFINITY, total = 0.f;
    for (int v = threadIdx.x; v < V; v += THREADS) {
        const float x = to_float(row[v]), m_new = fmaxf(m, x);  // (8.5) [sectors]
        total = exp_below(m, m_new) * total + exp_below(x, m_new);  // (8.8)
        m = m_new;
    }
    const float m_all = block_max(m, maxima);
    total = block_sum<WARPS>(exp_below(m, m_all) * total, sums);
    const float lse = m_all + logf(total);  // (9.2)
    if (threadIdx.x == 0) nll[blockIdx.x] = lse - to_float(row[target]);  // (9.3)
    if (!gradient) return;
    __syncthreads();  // thread 0 has read the target's logit before another overwrites it
    const float w = weights[blockIdx.x];
    for (int v = threadIdx.x; v < W; v += THREADS) {
        const float p = v < V ? expf(to_float(row[v]) - lse) : 0.f;  // (9.5) [sectors]
        store(&row[v], w * (v == target ? p - 1.f : p));             // (9.7) [sectors]
    }
}
