// Sampling: the next token of each sequence, from its row of logits.
//
//     t = argmaxᵥ ℓᵥ                                              (29.1)
//     p = softmax( ℓ / τ )                                        (29.2)
//     t = min { v : p₀ + … + pᵥ > u }                             (29.3)
//
// One block per sequence.  Without `u` it takes the likeliest token, of several the first, (29.1).
// With it, it draws one: p is exp((ℓ − m) / τ) with the largest logit m, without the division by
// the sum, which u is multiplied with instead.  (29.3) counts the tokens whose cumulative sum is
// not above that.  Each warp sums a segment of the row; then the warp in whose segment the sum
// exceeds u sums once more, token by token.  The sums are in double, as on a CPU, and always in the
// same order.  `u` comes as the sum of two floats, which have 48 of its bits.
//
// The kernel ends a step: it writes the token where the next step reads it, and advances the
// sequence's position, but not beyond `last`, where rows of a sequence that has ended stay.
//
// A row of logits is padded from V to W numbers.  What stands there is not read into any sum.
//
// Launch: grid (B,), 512 threads, four neighbouring numbers at a time; W must be a multiple of 4.
// Bytes, with S bytes a number: S·V a row, the least; a draw reads them twice more, from caches.
#include "dtype.cuh"
#include "reduce.cuh"
#define THREADS 512
#define WARPS (THREADS / 32)
#define STEP 128  // tokens that a warp reads at a time
#define NO_TOKEN 0x7fffffff

// The larger of two logits; of equal ones the earlier.
__device__ __forceinline__ void take_larger(float& best, int& token, float x, int v) {
    if (x > best || (x == best && v < token)) best = x, token = v;
}

__device__ __forceinline__ void take_largest_of_warp(float& best, int& token) {
    for (int away = 16; away; away /= 2) {
        const float x = __shfl_xor_sync(ALL_LANES, best, away);
        const int v = __shfl_xor_sync(ALL_LANES, token, away);
        take_larger(best, token, x, v);
    }
}

// The probabilities of four neighbouring tokens, but for a common factor; 0 from `end` on.
struct Four {
    double p[4];
};
__device__ __forceinline__ Four probabilities(const real* row, int v, int end, float m,
                                              float temperature) {
    const float4 x = v < end ? load4(row + v) : make_float4(0.f, 0.f, 0.f, 0.f);
    const float logits[4] = {x.x, x.y, x.z, x.w};
    Four four;
#pragma unroll
    for (int i = 0; i < 4; i++)
        four.p[i] = v + i < end ? expf((logits[i] - m) / temperature) : 0.f;  // (29.2)
    return four;
}

__device__ __forceinline__ double sum_of(const Four& four) {
    return four.p[0] + four.p[1] + four.p[2] + four.p[3];
}

extern "C" __global__ void __launch_bounds__(THREADS)
sample(
    const real* __restrict__ logits,  // (B, W)
    const float* __restrict__ u,      // (B, 2), optional
    int* __restrict__ ids,            // (B,)
    int* __restrict__ positions,      // (B,)
    int V,
    int W,
    int last,
    float temperature
) {
    __shared__ float best_of[WARPS];
    __shared__ int token_of[WARPS];
    __shared__ double sum_of_warp[WARPS];
    const int b = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const real* row = logits + (size_t)b * W;
    float best = MINUS_INFINITY;
    int token = NO_TOKEN;
    for (int v = threadIdx.x * 4; v < V; v += THREADS * 4) {
        const float4 x = load4(row + v);
        take_larger(best, token, x.x, v);
        if (v + 1 < V) take_larger(best, token, x.y, v + 1);
        if (v + 2 < V) take_larger(best, token, x.z, v + 2);
        if (v + 3 < V) take_larger(best, token, x.w, v + 3);
    }
    take_largest_of_warp(best, token);
    if (lane == 0) best_of[warp] = best, token_of[warp] = token;
    __syncthreads();
    best = best_of[lane % WARPS], token = token_of[lane % WARPS];
    take_largest_of_warp(best, token);  // (29.1)
    if (u) {
        const int segment = (V + WARPS * STEP - 1) / (WARPS * STEP) * STEP;
        const int start = warp * segment, end = min(start + segment, V);
        double sum = 0.;
#pragma unroll 1
        for (int step = 0; step < segment; step += STEP) {
            const int v = start + step + lane * 4;
            sum += sum_of(probabilities(row, v, end, best, temperature));
        }
        for (int away = 16; away; away /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, away);
        if (lane == 0) sum_of_warp[warp] = sum;
        __syncthreads();
        double total = 0., before = 0.;
#pragma unroll 1
        for (int i = 0; i < WARPS; i++) total += sum_of_warp[i];
        const double limit = ((double)u[2 * b] + u[2 * b + 1]) * total;
        int its_warp = 0;  // in whose segment the sum exceeds the limit
#pragma unroll 1
        while (its_warp < WARPS - 1 && before + sum_of_warp[its_warp] <= limit)
            before += sum_of_warp[its_warp++];
        if (warp != its_warp) return;
        int count = 0;  // tokens of the segment whose cumulative sum is not above the limit
#pragma unroll 1
        for (int step = 0; step < segment; step += STEP) {
            const int v = start + step + lane * 4;
            const Four four = probabilities(row, v, end, best, temperature);
            double up_to = sum_of(four);  // here and in the lanes before
            for (int away = 1; away < 32; away *= 2) {
                const double other = __shfl_up_sync(ALL_LANES, up_to, away);
                if (lane >= away) up_to += other;
            }
            double cumulative = before + up_to - sum_of(four);
            for (int i = 0; i < 4; i++) {
                cumulative += four.p[i];
                count += cumulative <= limit;  // (29.3)
            }
            before += __shfl_sync(ALL_LANES, up_to, 31);
        }
        for (int away = 16; away; away /= 2) count += __shfl_xor_sync(ALL_LANES, count, away);
        token = start + count;
    } else if (warp > 0) {
        return;
    }
    if (lane == 0) {
        ids[b] = min(token, V - 1);  // where no sum is above the limit, or no logit is a number
        positions[b] = min(positions[b] + 1, last);
    }
}
