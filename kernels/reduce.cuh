// Reductions over a warp, always in the same order, so that results repeat bit for bit.
//
// The 32 threads of a warp exchange registers by shuffles: after five steps, with partners 16, 8,
// 4, 2 and 1 lanes away, every lane has the result.
#define ALL_LANES 0xffffffffu
#define MINUS_INFINITY __int_as_float(0xff800000)  // NVRTC has no INFINITY

// Over groups of LANES neighbouring lanes, a power of two.
template <int LANES> __device__ __forceinline__ float warp_sum(float x) {
    for (int away = LANES / 2; away; away /= 2) x += __shfl_xor_sync(ALL_LANES, x, away);
    return x;
}

template <int LANES> __device__ __forceinline__ float warp_max(float x) {
    for (int away = LANES / 2; away; away /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, away));
    return x;
}
