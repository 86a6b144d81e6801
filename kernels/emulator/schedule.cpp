// The scheduler: blocks one after the other, and in a block every thread until all have returned.
//
// A thread runs until it reaches a barrier or a collective of its warp, or returns.  The order in
// which threads and blocks get their turns is a setting: a right kernel gives the same bits in
// every order.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "machine.h"

std::vector<Runner> runners;
Runner* current;
Block block;
char *dynamic_begin, *dynamic_end;
const Kernel* kernel;
std::string failure;
int checks;
static void** arguments;
extern "C" {
__attribute__((visibility("default"))) Thread* running;
}

enum Order { ASCENDING, DESCENDING, RANDOM };

static std::string where() {
    return " (block " + std::to_string(block.id) + ", thread " +
           std::to_string(current->thread.linear) + ")";
}

extern "C" void stop_kernel(const char* what, int line) {
    if (failure.empty()) failure = "line " + std::to_string(line) + ": " + what + where();
    leave(current->fiber);
    abort();  // nobody resumes a stopped kernel
}

extern "C" void* dynamic_shared() { return dynamic_begin; }

static void run_thread() {
    kernel->call(arguments);
    end_thread_copies();
    current->state = State::done;
    block.done++;
    leave(current->fiber);
    abort();
}

extern "C" void block_barrier(int line) { block_votes(0, line); }

extern "C" Votes block_votes(int value, int line) {
    if (block.arrived == 0) block.line = line;
    if (block.line != line) {
        const std::string others = std::to_string(block.line);
        stop_kernel(("divergent __syncthreads(): others wait at line " + others).c_str(), line);
    }
    current->line = line;
    block.yes += value != 0;
    current->state = State::at_block_barrier;
    if (++block.arrived == runners.size()) {  // the last one releases all
        block.votes = {block.yes, block.arrived};
        block.arrived = block.yes = 0;
        block.epoch++;
        for (Runner& runner : runners) runner.state = State::ready;
    }
    leave(current->fiber);  // also the last one: the scheduler chooses who continues first
    return block.votes;
}

static std::vector<unsigned> in_order(unsigned count, int order, std::mt19937& random) {
    std::vector<unsigned> sequence(count);
    for (unsigned i = 0; i < count; i++) sequence[i] = order == DESCENDING ? count - 1 - i : i;
    if (order == RANDOM) std::shuffle(sequence.begin(), sequence.end(), random);
    return sequence;
}

static std::string nobody_can_go_on() {
    const auto waits = std::find_if(runners.begin(), runners.end(),
                                    [](const Runner& r) { return r.state != State::done; });
    const bool at_barrier = waits->state == State::at_block_barrier;
    const std::string at = at_barrier ? "__syncthreads()" : "an operation of its warp";
    return "line " + std::to_string(waits->line) + ": thread " +
           std::to_string(waits->thread.linear) + " of block " + std::to_string(block.id) +
           " waits for ever in " + at + "; " + std::to_string(block.done) + " of " +
           std::to_string(runners.size()) + " threads have returned";
}

static void set_up_threads(dim3 grid, dim3 size) {
    const uint3 index = {block.id % grid.x, block.id / grid.x % grid.y, block.id / grid.x / grid.y};
    for (unsigned i = 0; i < runners.size(); i++) {
        runners[i] = Runner{};
        const uint3 thread = {i % size.x, i / size.x % size.y, i / size.x / size.y};
        runners[i].thread = {thread, index, size, grid, i, i % 32};
        runners[i].warp = i / 32;
        runners[i].clock[i % 32] = 1;
    }
}

// Give each of these threads that is ready a turn; returns whether one was.
static bool give_turns(const unsigned* threads, unsigned count) {
    bool progress = false;
    for (unsigned k = 0; k < count && failure.empty(); k++) {
        if (runners[threads[k]].state != State::ready) continue;
        progress = true;
        current = &runners[threads[k]];
        running = &current->thread;
        resume(current->fiber);
    }
    return progress;
}

// In a fixed order a warp runs until all its lanes wait for the block, so that what 32 threads
// touch stays in the processor's cache.  In a random order any thread may follow any other.
static void run_block(int order, std::mt19937& random) {
    begin_block_memory();
    begin_block_warps();
    begin_block_copies();
    for (Runner& runner : runners) begin_fiber(runner.fiber, run_thread);
    const unsigned threads = runners.size(), together = order == RANDOM ? threads : 32;
    std::vector<unsigned> sequence = in_order(threads, order, random);
    while (block.done < threads && failure.empty()) {
        bool progress = false;
        for (unsigned first = 0; first < threads; first += together)
            while (give_turns(&sequence[first], std::min(together, threads - first))) {
                progress = true;
                if (order == RANDOM) std::shuffle(sequence.begin(), sequence.end(), random);
            }
        if (!progress && failure.empty()) failure = nobody_can_go_on();
    }
    for (Runner& runner : runners) give_back(runner.fiber);
    current = nullptr;
}

// Returns null, or why the launch was stopped.
extern "C" __attribute__((visibility("default"))) const char* launch(
    const Kernel* of, void** with, const unsigned* grid, const unsigned* threads,
    size_t dynamic_bytes, int order, unsigned seed, int check, const Region* regions,
    size_t region_count) {
    kernel = of;
    arguments = with;
    checks = check;
    failure.clear();
    block = Block{};
    std::mt19937 random(seed);
    // NaN in every number that is read before it is written; an aligned address, as on a GPU.
    dynamic_begin = (char*)aligned_alloc(1024, (dynamic_bytes + 1023) / 1024 * 1024 + 1024);
    dynamic_end = dynamic_begin + dynamic_bytes;
    const dim3 grid_size = {grid[0], grid[1], grid[2]};
    const dim3 block_size = {threads[0], threads[1], threads[2]};
    runners.resize(threads[0] * threads[1] * threads[2]);
    begin_memory(regions, region_count);
    begin_traffic();
    for (unsigned id : in_order(grid[0] * grid[1] * grid[2], order, random)) {
        const uint32_t epoch = block.epoch + 1;
        block = Block{};
        block.id = id;
        block.epoch = epoch;
        memset(dynamic_begin, 0xff, dynamic_bytes);
        memset(kernel->shared_begin, 0xff, kernel->shared_end - kernel->shared_begin);
        set_up_threads(grid_size, block_size);
        run_block(order, random);
        if (!failure.empty()) break;
        if (checks & TRAFFIC) settle_traffic();
    }
    free(dynamic_begin);
    return failure.empty() ? nullptr : failure.c_str();
}
