// The machine's state: the block that runs, its threads, and the functions of its parts.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "fiber.h"
#include "thread.h"

enum class State { ready, at_block_barrier, at_warp_gather, done };

// A CUDA thread and what it knows of the order of accesses.  A barrier of the block orders all
// threads; __syncwarp() orders the lanes that take part: each gets the clocks of the others.
struct Runner {
    Thread thread;
    Fiber fiber;
    State state = State::ready;
    int line = 0;             // where it waits
    unsigned warp = 0;
    uint32_t clock[32] = {};  // of each lane of its warp, as far as this thread knows it
};

struct Block {
    unsigned id = 0, arrived = 0, done = 0, yes = 0;
    int line = 0;  // of the barrier that threads wait at
    uint32_t epoch = 0;
    Votes votes{};
};

// The addresses that a kernel may touch.
struct Region {
    uintptr_t begin, end;
    int64_t readonly;
};

extern std::vector<Runner> runners;
extern Runner* current;
extern Block block;
extern char *dynamic_begin, *dynamic_end;
extern const Kernel* kernel;
extern std::string failure;  // why the launch was stopped; empty while it runs

enum Checks { MEMORY = 1, TRAFFIC = 2 };
extern int checks;

unsigned warp_lanes(unsigned warp);  // as a mask: the last warp may have fewer than 32

void begin_memory(const Region* regions, size_t count);  // a launch begins
void begin_block_memory();
void begin_block_warps();
void begin_block_copies();
void end_thread_copies();  // the current thread returns
void copy_reads(uintptr_t from, unsigned size, bool arrived);  // from now on, or no more
void copy_is_sent(uintptr_t to, unsigned size, const void* pc);
void copy_has_arrived(uintptr_t to, unsigned size, const void* pc);
void copy_is_lost(const void* pc);
void begin_traffic();
void count_access(uintptr_t address, unsigned size, bool write, const void* pc,
                  const Region* region);
void settle_traffic();                                   // a block has ended
