// GELU, with the bias of the linear map before it, and that bias's gradient.
//
//     x = h + b                                                   (2.1)
//     u = √(2/π) (x + a x³),  a = 0.044715                        (5.1)
//     w = 1 / (1 + exp(−2 u))                                     (5.2)
//     y = x w                                                     (5.3)
//     ∂u/∂x = √(2/π) (1 + 3 a x²)                                 (5.5)
//     ∂y/∂x = w + 2 y (1 − w) ∂u/∂x                               (5.6)
//     dx = dy ∂y/∂x                                               (5.7)
//     dbₖ = Σₙ dxₙₖ                                               (2.4)
//
// Without `b`, x is h.  On a CPU the forward pass computes the slope (5.6) and saves it.  Here
// recomputing it from h costs less than writing and reading it, since memory is the limit.  The
// exponential and the reciprocal are single instructions (fast.cuh): by expf and a division,
// arithmetic would take longer than memory does.
//
// A warp has 512 bytes of a row, WIDTH neighbours a lane (rows.cuh), of two rows at once.  It reads
// b once for them.
// gelu_forward    grid (⌈F / (32·WIDTH)⌉, ⌈N / 16⌉): eight warps have two rows each.
// gelu_backward   grid (⌈F / (32·WIDTH)⌉, R): eight warps share a run of rows.  Each lane sums its
//                 dx up as it passes (2.4); the warps' sums are added in order (columns.cuh), a row
//                 of `partial` a block, and column_total adds the rows: no pass over dx for db.
//
// Bytes, with S bytes a number: forward reads h and writes y, 2·S·N·F; backward reads h and dy and
// writes dx, 3·S·N·F.  Both are the least, but for 8·R·F bytes of partial sums, written and read; b
// stays in cache.
#include "columns.cuh"
#include "fast.cuh"
#define THREADS 256
#define WARPS (THREADS / 32)
#define AT_ONCE 2  // rows of a warp
#define ROOT_2_PI 0.7978845608028654f
#define A 0.044715f

__device__ __forceinline__ float gate(float x) {
    const float u = ROOT_2_PI * (x + A * x * x * x);               // (5.1)
    return reciprocal(1.f + power_of_2(-2.f * LOG2_E * u));  // (5.2)
}

__device__ __forceinline__ float gated(float x) { return x * gate(x); }  // (5.3)

__device__ __forceinline__ float slope(float x) {
    const float w = gate(x);
    const float du_dx = ROOT_2_PI * (1.f + 3.f * A * x * x);  // (5.5)
    return w + 2.f * x * w * (1.f - w) * du_dx;               // (5.6)
}

// This lane's numbers of the bias, as they lie in memory.  It is a part of the array of all
// parameters, and may begin anywhere in that.
__device__ __forceinline__ uint4 bias_of(const real* b, int F) {
    if (!b) return make_uint4(0, 0, 0, 0);
    if ((unsigned long long)b % 16 == 0) return read_part(b, blockIdx.x, F);
    float x[WIDTH];
#pragma unroll
    for (int i = 0; i < WIDTH; i++)
        x[i] = in_row(blockIdx.x, i, F) ? to_float(b[column_of(blockIdx.x, i)]) : 0.f;
    return packed(x, real());
}

extern "C" __global__ void __launch_bounds__(THREADS)
gelu_forward(
    const real* __restrict__ h,  // (N, F)
    const real* __restrict__ b,  // (F,), optional
    real* __restrict__ y,        // (N, F)
    int N,
    int F
) {
    const int first = blockIdx.y * AT_ONCE * WARPS + threadIdx.x / 32;
    uint4 rows[AT_ONCE] = {};
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
        const int n = first + i * WARPS;
        if (n < N) rows[i] = read_part(h + (size_t)n * F, blockIdx.x, F);
    }
    float x[WIDTH], shift[WIDTH];
    unpack(shift, bias_of(b, F), real());
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
        const int n = first + i * WARPS;
        if (n >= N) continue;
        unpack(x, rows[i], real());
#pragma unroll
        for (int j = 0; j < WIDTH; j++) x[j] = gated(x[j] + shift[j]);  // (2.1)
        write_part(y + (size_t)n * F, blockIdx.x, F, x);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
gelu_backward(
    const real* __restrict__ dy,  // (N, F)
    const real* __restrict__ h,   // (N, F)
    const real* __restrict__ b,   // (F,), optional
    real* __restrict__ dx,        // (N, F)
    float* __restrict__ partial,  // (R, F)
    int N,
    int F,
    int R
) {
    __shared__ __align__(16) float room[WARPS][ROOM];
    const int rows = (N + R - 1) / R, first = blockIdx.y * rows, last = min(first + rows, N);
    const uint4 bias = bias_of(b, F);
    float sum[WIDTH] = {};
    for (int done = 0; done < rows; done += AT_ONCE * WARPS) {
        const int mine = first + done + threadIdx.x / 32;
        uint4 passing[AT_ONCE] = {}, input[AT_ONCE] = {};
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int n = mine + i * WARPS;
            if (n >= last) continue;
            passing[i] = read_part(dy + (size_t)n * F, blockIdx.x, F);
            input[i] = read_part(h + (size_t)n * F, blockIdx.x, F);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int n = mine + i * WARPS;
            if (n >= last) continue;
            float d[WIDTH], x[WIDTH], shift[WIDTH];
            unpack(d, passing[i], real());
            unpack(x, input[i], real());
            unpack(shift, bias, real());
#pragma unroll
            for (int j = 0; j < WIDTH; j++) {
                d[j] *= slope(x[j] + shift[j]);  // (2.1) (5.7)
                sum[j] += d[j];                  // (2.4)
            }
            write_part(dx + (size_t)n * F, blockIdx.x, F, d);
        }
    }
    add_sets<WARPS, 1>(room, sum, partial + (size_t)blockIdx.y * F, blockIdx.x, F);
}
