// Storage types: float, f16 and bf16.  Arithmetic is in float for all of them.
//
// A kernel is compiled for one storage type, -DREAL=float, f16 or bf16.  The two 16-bit types are
// defined here and not taken from CUDA's headers, so that a kernel's text needs no header at all:
// it compiles wherever NVRTC does.
#ifndef REAL
#define REAL float
#endif

struct f16 {
    unsigned short bits;  // 1 sign, 5 exponent, 10 fraction
};
struct bf16 {
    unsigned short bits;  // the upper half of a float
};
typedef REAL real;

__device__ __forceinline__ float to_float(float x) { return x; }

__device__ __forceinline__ float to_float(bf16 x) {
    return __uint_as_float((unsigned)x.bits << 16);
}

__device__ __forceinline__ float to_float(f16 x) {
#ifdef EMULATED
    return emulated::f16_to_float(x.bits);
#else
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
#endif
}

__device__ __forceinline__ void store(float* to, float x) { *to = x; }

// Round to nearest, ties to even: add just less than half of the last bit that remains, and that
// bit itself decides a tie.  NaN stays NaN.
__device__ __forceinline__ unsigned short bf16_bits(float x) {
    const unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

__device__ __forceinline__ unsigned short f16_bits(float x) {
#ifdef EMULATED
    return emulated::float_to_f16(x);
#else
    unsigned short y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
#endif
}

__device__ __forceinline__ void store(bf16* to, float x) { to->bits = bf16_bits(x); }

__device__ __forceinline__ void store(f16* to, float x) { to->bits = f16_bits(x); }

// Two numbers, rounded, in one register: the first in the lower half.
__device__ __forceinline__ unsigned packed(float first, float second, bf16) {
#if __CUDA_ARCH__ >= 800
    unsigned both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
    return both;
#else
    return bf16_bits(first) | (unsigned)bf16_bits(second) << 16;
#endif
}

__device__ __forceinline__ unsigned packed(float first, float second, f16) {
#if __CUDA_ARCH__ >= 800
    unsigned both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
    return both;
#else
    return f16_bits(first) | (unsigned)f16_bits(second) << 16;
#endif
}

__device__ __forceinline__ float2 unpacked(unsigned both, bf16) {
    return make_float2(__uint_as_float(both << 16), __uint_as_float(both & 0xffff0000u));
}

__device__ __forceinline__ float2 unpacked(unsigned both, f16) {
#ifdef EMULATED
    return make_float2(emulated::f16_to_float((unsigned short)both),
                       emulated::f16_to_float((unsigned short)(both >> 16)));
#else
    float2 x;
    asm("{.reg .b16 low, high; mov.b32 {low, high}, %2; cvt.f32.f16 %0, low; "
        "cvt.f32.f16 %1, high;}"
        : "=f"(x.x), "=f"(x.y)
        : "r"(both));
    return x;
#endif
}

// WIDTH neighbours, 16 bytes, as one access moves them: the most that a thread can ask for at once.
#define WIDTH (16 / (int)sizeof(real))

__device__ __forceinline__ void unpack(float (&x)[4], uint4 v, float) {
    x[0] = __uint_as_float(v.x);
    x[1] = __uint_as_float(v.y);
    x[2] = __uint_as_float(v.z);
    x[3] = __uint_as_float(v.w);
}

template <typename T> __device__ __forceinline__ void unpack(float (&x)[8], uint4 v, T type) {
    const unsigned pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 pair = unpacked(pairs[i], type);
        x[2 * i] = pair.x;
        x[2 * i + 1] = pair.y;
    }
}

__device__ __forceinline__ uint4 packed(const float (&x)[4], float) {
    return make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]),
                      __float_as_uint(x[3]));
}

template <typename T> __device__ __forceinline__ uint4 packed(const float (&x)[8], T type) {
    return make_uint4(packed(x[0], x[1], type), packed(x[2], x[3], type),
                      packed(x[4], x[5], type), packed(x[6], x[7], type));
}

// The same from memory and into it; `p` must be a multiple of 16 bytes.
__device__ __forceinline__ void load16(float (&x)[WIDTH], const real* p) {
    unpack(x, *(const uint4*)p, real());
}

__device__ __forceinline__ void store16(real* p, const float (&x)[WIDTH]) {
    *(uint4*)p = packed(x, real());
}

// Four neighbours in one access: 16 bytes of float, 8 of a 16-bit type.  `p` must be a multiple of
// these.
template <typename T> struct __align__(4 * sizeof(T)) four {
    T x, y, z, w;
};

template <typename T> __device__ __forceinline__ float4 load4(const T* p) {
    const four<T> v = *(const four<T>*)p;
    return make_float4(to_float(v.x), to_float(v.y), to_float(v.z), to_float(v.w));
}

template <typename T> __device__ __forceinline__ void store4(T* p, float4 v) {
    four<T> r;
    store(&r.x, v.x);
    store(&r.y, v.y);
    store(&r.z, v.z);
    store(&r.w, v.w);
    *(four<T>*)p = r;
}

// Two neighbours, likewise.
template <typename T> struct __align__(2 * sizeof(T)) two {
    T x, y;
};

template <typename T> __device__ __forceinline__ void store2(T* p, float x, float y) {
    two<T> r;
    store(&r.x, x);
    store(&r.y, y);
    *(two<T>*)p = r;
}
