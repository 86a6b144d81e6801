// The interface between the kernel's side and the machine's side of the emulator.
//
// The kernel's side is the text of a kernel, compiled with cuda.h before it.  The machine's side is
// the .cpp files in this folder, which are compiled without the kernel.
#pragma once
#include <cstddef>
#include <cstdint>

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct uint3 {
    unsigned x, y, z;
};

// One CUDA thread, as the kernel sees itself.
struct Thread {
    uint3 thread_idx, block_idx;
    dim3 block_dim, grid_dim;
    unsigned linear;  // its number in the block, x fastest
    unsigned lane;    // its number in the warp
};

// A kernel, as the machine sees it.
struct Kernel {
    void (*call)(void** arguments);
    const char* signature;            // one tag a parameter, see describe.h
    char *shared_begin, *shared_end;  // its static shared memory
    int launch_bound;                 // of __launch_bounds__, or 0
};

extern "C" {
extern Thread* running;  // the thread that runs at this moment
void* dynamic_shared();

// All threads of the block meet at one line.
void block_barrier(int line);
// The same; returns to every thread how many passed a nonzero value, and how many there are.
struct Votes {
    unsigned yes, all;
};
Votes block_votes(int value, int line);

// All lanes of `mask` meet at one line, each with `size` (at most 32) bytes.  Returns 32 records of
// 32 bytes, lane by lane.  Exchanging registers does not order memory; only __syncwarp() does,
// which sets `fence`.
const unsigned char* warp_gather(unsigned mask, const void* mine, unsigned size, int line,
                                 int fence);
unsigned present(unsigned mask);  // the lanes of a mask that exist in this warp

// A copy from global to shared memory that goes on while its thread continues, see copies.cpp.
// What does not exist is not read, and becomes 0.  A wait lets this thread's committed groups of
// copies arrive, but for the `left` last ones.
void send_copy(void* to, const void* from, int size, int exists, int line, const void* pc);
void close_copies();
void let_copies_arrive(int left);

void touched(const void* p, unsigned size, int write, int atomic, const void* pc);
[[noreturn]] void stop_kernel(const char* what, int line);
}

// The emulator's own accesses are not the kernel's, so the compiler must not report them.
#define UNWATCHED __attribute__((no_sanitize("thread")))
