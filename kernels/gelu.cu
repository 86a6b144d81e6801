// GELU, with the bias of the linear map before it.
//
//     x = h + b                                                   (2.1)
//     u = √(2/π) (x + a x³),  a = 0.044715                        (5.1)
//     w = ½ (1 + tanh u)                                          (5.2)
//     y = x w                                                     (5.3)
//     ∂u/∂x = √(2/π) (1 + 3 a x²)                                 (5.5)
//     ∂y/∂x = w + 2 y (1 − w) ∂u/∂x                               (5.6)
//     dx = dy ∂y/∂x                                               (5.7)
//
// Without `b`, x is h.  On a CPU the forward pass computes the slope (5.6) and saves it.  Here
// recomputing it from h costs less than writing and reading it, since memory is the limit.
//
// Launch: one block of 256 threads for 1,024 neighbours of one row, grid (N, ⌈F / 1024⌉).  Four
// numbers a thread, so F must be a multiple of 4.
// Bytes, with S bytes a number: forward reads h and writes y, 2·S·N·F; backward reads h and dy and
// writes dx, 3·S·N·F.  Both are the least; b stays in cache.
#include "dtype.cuh"
#define THREADS 256
#define ROOT_2_PI 0.7978845608028654f
#define A 0.044715f

__device__ __forceinline__ float inner(float x) {
    return ROOT_2_PI * (x + A * x * x * x);  // (5.1)
}

__device__ __forceinline__ float gate(float u) { return 0.5f * (1.f + tanhf(u)); }  // (5.2)

__device__ __forceinline__ float gated(float x) { return x * gate(inner(x)); }  // (5.3)

__device__ __forceinline__ float slope(float x) {
    const float w = gate(inner(x));
    const float du_dx = ROOT_2_PI * (1.f + 3.f * A * x * x);  // (5.5)
    return w + 2.f * x * w * (1.f - w) * du_dx;               // (5.6)
}

__device__ __forceinline__ float4 input(const real* h, const real* b) {
    const float4 x = load4(h), c = b ? load4(b) : make_float4(0.f, 0.f, 0.f, 0.f);
    return make_float4(x.x + c.x, x.y + c.y, x.z + c.z, x.w + c.w);  // (2.1)
}

extern "C" __global__ void __launch_bounds__(THREADS)
gelu_forward(
    const real* __restrict__ h,  // (N, F)
    const real* __restrict__ b,  // (F,), optional
    real* __restrict__ y,        // (N, F)
    int F
) {
    const int f = (blockIdx.y * THREADS + threadIdx.x) * 4;
    if (f >= F) return;
    const size_t i = (size_t)blockIdx.x * F + f;
    const float4 x = input(h + i, b ? b + f : b);
    store4(y + i, make_float4(gated(x.x), gated(x.y), gated(x.z), gated(x.w)));
}

extern "C" __global__ void __launch_bounds__(THREADS)
gelu_backward(
    const real* __restrict__ dy,  // (N, F)
    const real* __restrict__ h,   // (N, F)
    const real* __restrict__ b,   // (F,), optional
    real* __restrict__ dx,        // (N, F)
    int F
) {
    const int f = (blockIdx.y * THREADS + threadIdx.x) * 4;
    if (f >= F) return;
    const size_t i = (size_t)blockIdx.x * F + f;
    const float4 x = input(h + i, b ? b + f : b), d = load4(dy + i);
    store4(dx + i, make_float4(d.x * slope(x.x), d.y * slope(x.y), d.z * slope(x.z),
                               d.w * slope(x.w)));  // (5.7)
}
