// The names that CUDA defines for a kernel's text, for a C++ compiler.
//
// g++ includes this file before the text (g++ -include cuda.h).  The text tests EMULATED only where
// it would use the GPU's assembly, see ptx.h.
#pragma once
#include <climits>
#include <cstring>

#include "thread.h"

#define EMULATED 1
#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// __shared__ is defined anew before each kernel, so that each has a section of its own.

template <class T, int ALIGNMENT> struct alignas(ALIGNMENT) Pair {
    T x, y;
};
template <class T, int ALIGNMENT> struct alignas(ALIGNMENT) Quad {
    T x, y, z, w;
};
using float2 = Pair<float, 8>;
using float4 = Quad<float, 16>;
using uint2 = Pair<unsigned, 8>;
using uint4 = Quad<unsigned, 16>;
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

UNWATCHED inline uint3 thread_idx() { return running->thread_idx; }
UNWATCHED inline uint3 block_idx() { return running->block_idx; }
UNWATCHED inline dim3 block_dim() { return running->block_dim; }
UNWATCHED inline dim3 grid_dim() { return running->grid_dim; }
UNWATCHED inline int lane_of() { return (int)running->lane; }
#define threadIdx thread_idx()
#define blockIdx block_idx()
#define blockDim block_dim()
#define gridDim grid_dim()

// Barriers of the block.
#define __syncthreads() block_barrier(__LINE__)
#define __syncthreads_or(value) (int)(block_votes(value, __LINE__).yes > 0)
#define __syncthreads_count(value) (int)(block_votes(value, __LINE__).yes)
inline int all_of(Votes votes) { return votes.yes == votes.all; }
#define __syncthreads_and(value) all_of(block_votes(value, __LINE__))

// Functions of numbers, as CUDA has them without an include.  g++ would take longer to read <cmath>
// than to read a kernel.  On a GPU the fast forms are less exact than the others; here they are the
// same.
inline float expf(float x) { return __builtin_expf(x); }
inline float exp2f(float x) { return __builtin_exp2f(x); }
inline float logf(float x) { return __builtin_logf(x); }
inline float tanhf(float x) { return __builtin_tanhf(x); }
inline float sqrtf(float x) { return __builtin_sqrtf(x); }
inline float fabsf(float x) { return __builtin_fabsf(x); }
inline float fmaxf(float x, float y) { return __builtin_fmaxf(x, y); }
inline float fminf(float x, float y) { return __builtin_fminf(x, y); }
inline float fmaf(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
// A product that is rounded by itself, and never fused with an addition.
UNWATCHED __attribute__((noinline)) inline float __fmul_rn(float x, float y) { return x * y; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
UNWATCHED inline unsigned __float_as_uint(float f) {
    unsigned u;
    memcpy(&u, &f, 4);
    return u;
}
UNWATCHED inline float __uint_as_float(unsigned u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
inline int __float_as_int(float f) { return (int)__float_as_uint(f); }
inline float __int_as_float(int i) { return __uint_as_float((unsigned)i); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
template <class T> constexpr T max(T a, T b) { return a < b ? b : a; }
template <class T> constexpr T min(T a, T b) { return b < a ? b : a; }

#include "atomics.h"
#include "describe.h"
#include "ptx.h"
#include "warp.h"
