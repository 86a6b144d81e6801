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
