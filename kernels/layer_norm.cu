// Layer normalisation, with the addition to the residual stream before it.
//
//     xᵢ  = streamᵢ + aᵢ, where there is something to add         (4.21)
//     μ   = (1/C) Σᵢ xᵢ                                           (4.1)
//     v   = (1/C) Σᵢ (xᵢ − μ)²                                    (4.2)
//     r   = 1 / √(v + ε)                                          (4.3)
//     x̂ᵢ  = (xᵢ − μ) r                                            (4.4)
//     yᵢ  = γᵢ x̂ᵢ + βᵢ                                            (4.5)
//     dγᵢ = Σₙ dyₙᵢ x̂ₙᵢ                                           (4.6)
//     dβᵢ = Σₙ dyₙᵢ                                               (4.7)
//     gᵢ  = γᵢ dyᵢ                                                (4.8)
//     ⟨g⟩ = (1/C) Σⱼ gⱼ                                           (4.18)
//     ⟨g x̂⟩ = (1/C) Σⱼ gⱼ x̂ⱼ                                      (4.19)
//     dxᵢ = r ( gᵢ − ⟨g⟩ − x̂ᵢ ⟨g x̂⟩ )                             (4.20)
//     dxᵢ = passingᵢ + r ( gᵢ − ⟨g⟩ − x̂ᵢ ⟨g x̂⟩ )                  (4.22)
//
// `passing` is the gradient that the stream brings past the normalisation; 0 where there is none.
//
// layer_norm_forward    a block a row: 256 threads hold the row in registers, thread t the
//                       features t, t + 256, ...; so C is at most 2,048, and memory is read once.
// layer_norm_backward   R blocks, each with a run of rows.  A thread meets the same features in
//                       every row, so its shares of dγ and dβ stay in its registers; at the end each
//                       block leaves one row of partial sums.
// layer_norm_sum        adds the blocks' rows in order: no atomics, the same bits each time.
//
// x̂ is not kept, only μ and r: two numbers a row, and x̂ costs a subtraction and a product.
//
// Bytes, S being those of one number: forward reads stream and a, writes x and y, 4·S·N·C (or 2
// without an addition); backward reads dy, x, passing and writes dx, 4·S·N·C (or 3).  All the
// least, but for 8·C·R of partial sums.
// Shared memory: a number for each warp and reduction.
#include "number.cuh"
#include "block.cuh"
#define THREADS 256
#define WARPS (THREADS / 32)
#define MOST 8  // features a thread holds: C is at most THREADS * MOST

// Thread t holds features t + 256 k; a feature beyond C counts as 0 everywhere.
#define EACH(k, c) \
    _Pragma("unroll") for (int k = 0, c = threadIdx.x; k < MOST; k++, c += THREADS) if (c < C)

extern "C" __global__ void __launch_bounds__(THREADS)
layer_norm_forward(
    const real* __restrict__ stream,  // (N, C)
    const real* __restrict__ a,       // (N, C), optional
    const real* __restrict__ gamma,   // (C,)
    const real* __restrict__ beta,    // (C,)
    real* __restrict__ x,             // (N, C), optional
    real* __restrict__ y,             // (N, C)
    float* __restrict__ mean,         // (N,)
    float* __restrict__ inverse,      // (N,)
    int C,
    float eps
) {
    __shared__ float room[2][WARPS];
    const size_t row = (size_t)blockIdx.x * C;
    float v[MOST], sum = 0.f, squares = 0.f;
    EACH(k, c) {
        v[k] = to_float(stream[row + c]);
        if (a) {
            v[k] += to_float(a[row + c]);
            store(&x[row + c], v[k]);  // (4.21)
            v[k] = to_float(x[row + c]);  // as the backward pass will read it
        }
        sum += v[k];
    }
    const float mu = block_sum<WARPS>(sum, room[0]) / C;  // (4.1)
    EACH(k, c) squares += (v[k] - mu) * (v[k] - mu);
    const float r = 1.f / sqrtf(block_sum<WARPS>(squares, room[1]) / C + eps);  // (4.2) (4.3)
    EACH(k, c) store(&y[row + c], to_float(gamma[c]) * ((v[k] - mu) * r) + to_float(beta[c]));  // (4.4) (4.5)
    if (threadIdx.x == 0) {
        mean[blockIdx.x] = mu;
        inverse[blockIdx.x] = r;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
layer_norm_backward(
    const real* __restrict__ dy,        // (N, C)
    const real* __restrict__ x,         // (N, C)
    const real* __restrict__ gamma,     // (C,)
    const float* __restrict__ mean,     // (N,)
    const float* __restrict__ inverse,  // (N,)
    const real* __restrict__ passing,   // (N, C), optional
    real* __restrict__ dx,              // (N, C)
    float* __restrict__ partial,        // (R, 2, C)
    int N,
    int C,
    int R
) {
    __shared__ float room[2][WARPS];
    float dgamma[MOST] = {}, dbeta[MOST] = {};
    const int rows = (N + R - 1) / R, first = blockIdx.x * rows;
    for (int n = first; n < first + rows && n < N; n++) {
        const size_t row = (size_t)n * C;
        const float mu = mean[n], r = inverse[n];
        float x_hat[MOST], g[MOST], sum_g = 0.f, sum_along = 0.f;
        EACH(k, c) {
            const float d = to_float(dy[row + c]);
            x_hat[k] = (to_float(x[row + c]) - mu) * r;  // (4.4)
            g[k] = to_float(gamma[c]) * d;               // (4.8)
            dgamma[k] += d * x_hat[k];                   // (4.6)
            dbeta[k] += d;                               // (4.7)
            sum_g += g[k];
            sum_along += g[k] * x_hat[k];
        }
        const float mean_g = block_sum<WARPS>(sum_g, room[0]) / C;     // (4.18)
        const float along = block_sum<WARPS>(sum_along, room[1]) / C;  // (4.19)
        EACH(k, c) {
            const float back = r * (g[k] - mean_g - x_hat[k] * along);                     // (4.20)
            store(&dx[row + c], passing ? to_float(passing[row + c]) + back : back);  // (4.22)
        }
    }
    EACH(k, c) {
        partial[(size_t)(2 * blockIdx.x) * C + c] = dgamma[k];
        partial[(size_t)(2 * blockIdx.x + 1) * C + c] = dbeta[k];
    }
}

// grid (⌈C / 256⌉, 2): dγ, then dβ.
extern "C" __global__ void __launch_bounds__(THREADS)
layer_norm_sum(
    const float* __restrict__ partial,  // (R, 2, C)
    float* __restrict__ both,           // (2, C)
    int R,
    int C
) {
    const int c = blockIdx.x * THREADS + threadIdx.x, which = blockIdx.y;
    if (c >= C) return;
    float sum = 0.f;
    for (int b = 0; b < R; b++) sum += partial[(size_t)(2 * b + which) * C + c];  // (4.6) (4.7)
    both[(size_t)which * C + c] = sum;
}
