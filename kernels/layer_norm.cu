// Layer normalisation.
//
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
//     dxᵢ = d_residualᵢ + r ( gᵢ − ⟨g⟩ − x̂ᵢ ⟨g x̂⟩ )               (4.21)
//
// Without `d_residual`, dx is (4.20).
//
// layer_norm_forward    one block per row.  Its 256 threads hold the row in registers, thread t the
//                       features t, t + 256, ...; so C is at most 2,048, and memory is read once.
// layer_norm_backward   R blocks, each with a run of rows.  A thread has the same features in
//                       every row, so it sums its part of dγ and dβ in registers.  At the end each
//                       block writes one row of partial sums.
// layer_norm_sum        adds the blocks' partial sums in order: no atomics, so the same bits each
//                       time.
//
// The forward pass saves μ and r, two numbers a row, and not x̂: recomputing it costs a subtraction
// and a product.
//
// Bytes, with S bytes a number: forward reads x and writes y, 2·S·N·C; backward reads dy, x,
// d_residual and writes dx, 4·S·N·C (or 3).  Both are the least, apart from 8·C·R bytes of partial
// sums.
// Shared memory: one number for each warp and reduction.
#include "dtype.cuh"
#include "block.cuh"
#define THREADS 256
#define WARPS (THREADS / 32)
#define MOST 8  // features of a thread: C is at most THREADS * MOST

// A thread loops over its MOST features and skips those beyond C.  The number of turns is fixed, so
// the compiler unrolls each loop and keeps the arrays of MOST numbers in registers.
extern "C" __global__ void __launch_bounds__(THREADS)
layer_norm_forward(
    const real* __restrict__ x,      // (N, C)
    const real* __restrict__ gamma,  // (C,)
    const real* __restrict__ beta,   // (C,)
    real* __restrict__ y,            // (N, C)
    float* __restrict__ mean,        // (N,)
    float* __restrict__ rstd,        // (N,)
    int C,
    float eps
) {
    __shared__ float smem[2][WARPS];
    const size_t row = (size_t)blockIdx.x * C;
    float own[MOST], sum = 0.f, squares = 0.f;  // own: the thread's features of x
#pragma unroll
    for (int k = 0, c = threadIdx.x; k < MOST; k++, c += THREADS) {
        if (c >= C) continue;
        own[k] = to_float(x[row + c]);
        sum += own[k];
    }
    const float mu = block_sum<WARPS>(sum, smem[0]) / C;  // (4.1)
#pragma unroll
    for (int k = 0, c = threadIdx.x; k < MOST; k++, c += THREADS)
        if (c < C) squares += (own[k] - mu) * (own[k] - mu);
    const float v = block_sum<WARPS>(squares, smem[1]) / C;  // (4.2)
    const float r = 1.f / sqrtf(v + eps);                    // (4.3)
#pragma unroll
    for (int k = 0, c = threadIdx.x; k < MOST; k++, c += THREADS) {
        if (c >= C) continue;
        const float x_hat = (own[k] - mu) * r;                                // (4.4)
        store(&y[row + c], to_float(gamma[c]) * x_hat + to_float(beta[c]));  // (4.5)
    }
    if (threadIdx.x == 0) {
        mean[blockIdx.x] = mu;
        rstd[blockIdx.x] = r;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
layer_norm_backward(
    const real* __restrict__ dy,          // (N, C)
    const real* __restrict__ x,           // (N, C)
    const real* __restrict__ gamma,       // (C,)
    const float* __restrict__ mean,       // (N,)
    const float* __restrict__ rstd,       // (N,)
    const real* __restrict__ d_residual,  // (N, C), optional
    real* __restrict__ dx,                // (N, C)
    float* __restrict__ partial,          // (R, 2, C)
    int N,
    int C,
    int R
) {
    __shared__ float smem[2][WARPS];
    float dgamma[MOST] = {}, dbeta[MOST] = {};
    const int rows = (N + R - 1) / R, first = blockIdx.x * rows;
    for (int n = first; n < first + rows && n < N; n++) {
        const size_t row = (size_t)n * C;
        const float mu = mean[n], r = rstd[n];
        float x_hat[MOST], g[MOST], sum_g = 0.f, sum_g_x_hat = 0.f;
#pragma unroll
        for (int k = 0, c = threadIdx.x; k < MOST; k++, c += THREADS) {
            if (c >= C) continue;
            const float d = to_float(dy[row + c]);
            x_hat[k] = (to_float(x[row + c]) - mu) * r;  // (4.4)
            g[k] = to_float(gamma[c]) * d;               // (4.8)
            dgamma[k] += d * x_hat[k];                   // (4.6)
            dbeta[k] += d;                               // (4.7)
            sum_g += g[k];
            sum_g_x_hat += g[k] * x_hat[k];
        }
        const float mean_g = block_sum<WARPS>(sum_g, smem[0]) / C;              // (4.18)
        const float mean_g_x_hat = block_sum<WARPS>(sum_g_x_hat, smem[1]) / C;  // (4.19)
#pragma unroll
        for (int k = 0, c = threadIdx.x; k < MOST; k++, c += THREADS) {
            if (c >= C) continue;
            float d = r * (g[k] - mean_g - x_hat[k] * mean_g_x_hat);    // (4.20)
            if (d_residual) d = to_float(d_residual[row + c]) + d;  // (4.21)
            store(&dx[row + c], d);
        }
    }
#pragma unroll
    for (int k = 0, c = threadIdx.x; k < MOST; k++, c += THREADS) {
        if (c >= C) continue;
        partial[(size_t)(2 * blockIdx.x) * C + c] = dgamma[k];
        partial[(size_t)(2 * blockIdx.x + 1) * C + c] = dbeta[k];
    }
}

// grid (⌈C / 256⌉, 2): dγ, then dβ.
extern "C" __global__ void __launch_bounds__(THREADS)
layer_norm_sum(
    const float* __restrict__ partial,  // (R, 2, C)
    float* __restrict__ dgamma_dbeta,   // (2, C)
    int R,
    int C
) {
    const int c = blockIdx.x * THREADS + threadIdx.x, half = blockIdx.y;
    if (c >= C) return;
    float sum = 0.f;
    for (int b = 0; b < R; b++) sum += partial[(size_t)(2 * b + half) * C + c];  // (4.6) (4.7)
    dgamma_dbeta[(size_t)half * C + c] = sum;
}
