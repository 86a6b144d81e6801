// Copies from global to shared memory that go on while the threads compute (sm_80 and later).
//
// A thread sends copies of 4, 8 or 16 bytes, closes a group of them, and later waits until all of
// its groups but the last few have arrived.  A wait is for the copies of one thread: what others
// sent may be read only after a barrier that follows their waits.
//
//     copy_async<16>(to, from, exists);  // zeros where nothing exists, and `from` is not read
//     commit_copies();
//     wait_for_copies<LEFT>();           // all groups but the LEFT last ones
//     __syncthreads();
//
// Older GPUs copy at once.
//
// An address in shared memory has 32 bits on a GPU, half the registers of a pointer.
#ifdef EMULATED
typedef unsigned char* shared_address;
__device__ __forceinline__ shared_address address_of(const void* p) { return (shared_address)p; }
// An address with some of its bits flipped: a tile's rows change places so that they meet in no
// bank.  The tile must begin at a multiple of what they flip, twice over, or it is left.
__device__ __forceinline__ shared_address flipped(shared_address a, unsigned bits) {
    return (shared_address)((unsigned long long)a ^ bits);
}
#else
typedef unsigned shared_address;
__device__ __forceinline__ shared_address address_of(const void* p) {
    return (unsigned)__cvta_generic_to_shared(p);
}
__device__ __forceinline__ shared_address flipped(shared_address a, unsigned bits) {
    return a ^ bits;
}
#endif

// Both addresses are a multiple of BYTES.  16 bytes pass by the L1 cache, and the L2 cache reads
// 128 at once.
template <int BYTES>
__device__ __forceinline__ void copy_async(shared_address to, const void* from, bool exists) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "a copy moves 4, 8 or 16 bytes");
#ifdef EMULATED
    emulated::copy_async(to, from, BYTES, exists, __LINE__);
#elif __CUDA_ARCH__ >= 800
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                     "r"(exists ? 16 : 0)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from),
                     "n"(BYTES == 16 ? 8 : BYTES), "r"(exists ? BYTES : 0)
                     : "memory");
#else
    void* const place = __cvta_shared_to_generic(to);
    if (BYTES == 4)
        *(unsigned*)place = exists ? *(const unsigned*)from : 0u;
    else if (BYTES == 8)
        *(uint2*)place = exists ? *(const uint2*)from : make_uint2(0, 0);
    else
        *(uint4*)place = exists ? *(const uint4*)from : make_uint4(0, 0, 0, 0);
#endif
}

__device__ __forceinline__ void commit_copies() {
#ifdef EMULATED
    emulated::copies_committed(__LINE__);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int LEFT> __device__ __forceinline__ void wait_for_copies() {
#ifdef EMULATED
    emulated::copies_wait(LEFT, __LINE__);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#endif
}
