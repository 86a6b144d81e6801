// 2ˣ and 1/x by the instructions for them, where an error of 2^-22 is small enough.
//
// expf and a division take about ten instructions each, most of them for the last bit and for
// subnormal numbers.  These take one; what is subnormal counts as 0.  The emulator is exact.
#define LOG2_E 1.4426950408889634f  // exp(x) = 2^(x log₂ e)

__device__ __forceinline__ float power_of_2(float x) {
#ifdef EMULATED
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

__device__ __forceinline__ float reciprocal(float x) {
#ifdef EMULATED
    return 1.f / x;
#else
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}
