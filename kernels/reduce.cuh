// Reductions: one number from many threads, always in the same order, so that results repeat bit
// for bit.
//
// The 32 threads of a warp exchange registers by shuffles: after five steps, with partners 16, 8,
// 4, 2 and 1 lanes away, every lane has the result.  The warps of a block then exchange theirs
// through shared memory.
#define ALL_LANES 0xffffffffu
#define MINUS_INFINITY __int_as_float(0xff800000)  // NVRTC knows no INFINITY

// Over groups of LANES neighbouring lanes, a power of two.
template <int LANES> __device__ __forceinline__ float lanes_sum(float x) {
    for (int away = LANES / 2; away; away /= 2) x += __shfl_xor_sync(ALL_LANES, x, away);
    return x;
}

template <int LANES> __device__ __forceinline__ float lanes_max(float x) {
    for (int away = LANES / 2; away; away /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, away));
    return x;
}

// The sum over a block of WARPS full warps, given to every thread.  `room` has a place for each warp; it
// may be used again only behind another barrier of the block.
template <int WARPS> __device__ __forceinline__ float block_sum(float x, float* room) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    x = lanes_sum<32>(x);
    if (lane == 0) room[warp] = x;
    __syncthreads();
    return lanes_sum<32>(lane < WARPS ? room[lane] : 0.f);
}

template <int WARPS> __device__ __forceinline__ float block_max(float x, float* room) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    x = lanes_max<32>(x);
    if (lane == 0) room[warp] = x;
    __syncthreads();
    return lanes_max<32>(lane < WARPS ? room[lane] : MINUS_INFINITY);
}
