// The memory checks: every access of the kernel is checked.
//
// The compiler calls a function before every read and write (-fsanitize=thread).  These functions,
// usually those of its own library, are defined here.  For every two bytes that a kernel may touch,
// this file records the last writer and the readers since.  Two accesses to the same bytes by
// different threads, one of them a write, race unless something orders them:
//   - in one block, a barrier of the block between them: their epochs differ;
//   - in one warp, __syncwarp(): the later thread then knows a time of the earlier thread's clock
//     that is after its access.
// Nothing orders the blocks of a launch.  Two atomic accesses do not race.
//
// An asynchronous copy is a write from where it is sent to where its thread waits for it: it must
// not race with what came before, and nothing may touch its bytes in between.  Once it has arrived
// it is a write of its thread at the wait.  As long it may read its source, which nobody may
// overwrite meanwhile.
#include <cstdio>
#include <cstring>
#include <map>
#include <tuple>
#include <unordered_map>

#include "machine.h"

namespace {

enum Kind { WRITE_WRITE, READ_WRITE, UNWRITTEN, OUTSIDE, CONST, MISALIGNED, EARLY, LOST };

struct Access {
    const void* pc = nullptr;  // null: there was none
    uint32_t epoch = 0, clock = 0;
    unsigned block = 0, thread = 0;
    bool atomic = false, coming = false;  // coming: a copy that has not arrived
};
struct Cell {  // two bytes
    Access write, read;
    bool other_blocks_read = false;
    int more = -1;  // further readers, in `readers`
    unsigned copies = 0;  // that have not arrived, and may still read it
    Access copy;          // the latest of them
};
struct Finding {
    const void *at, *other;
    uint64_t kind, times, block, thread, other_thread;
};

std::vector<Region> regions;
std::vector<std::vector<Cell>> of_region;
std::vector<Cell> of_static, of_dynamic;
std::vector<std::vector<Access>> readers;  // those of a cell beyond the latest one
std::map<std::tuple<int, const void*, const void*>, Finding> findings;

void report(Kind kind, const void* at, const Access* earlier) {
    const void* other = earlier ? earlier->pc : nullptr;
    const unsigned me = current->thread.linear;
    Finding& finding = findings[{kind, at, other}];
    if (!finding.times)
        finding = {at, other, kind, 0, block.id, me, earlier ? earlier->thread : me};
    finding.times++;
}

bool ordered(const Access& earlier) {
    if (earlier.block != block.id) return false;
    const unsigned me = current->thread.linear;
    if (earlier.thread == me || earlier.epoch < block.epoch) return true;
    return earlier.thread / 32 == me / 32 && current->clock[earlier.thread % 32] >= earlier.clock;
}

void races(const Access& earlier, bool write, bool atomic, bool earlier_wrote, const void* pc) {
    if (earlier.coming) report(EARLY, pc, &earlier);
    else if (earlier.pc && !(atomic && earlier.atomic) && !ordered(earlier))
        report(write && earlier_wrote ? WRITE_WRITE : READ_WRITE, pc, &earlier);
}

void remember_read(Cell& cell, const Access& mine) {
    if (cell.read.pc && cell.read.block != mine.block) cell.other_blocks_read = true;
    const bool fresh =
        !cell.read.pc || cell.read.block != mine.block || cell.read.epoch != mine.epoch;
    if (fresh && cell.more >= 0) readers[cell.more].clear();
    if (!fresh && cell.read.thread != mine.thread) {  // keep the earlier reader, too
        if (cell.more < 0) {
            cell.more = (int)readers.size();
            readers.emplace_back();
        }
        bool known = false;
        for (Access& reader : readers[cell.more])
            if (reader.thread == cell.read.thread) {
                reader = cell.read;
                known = true;
            }
        if (!known) readers[cell.more].push_back(cell.read);
    }
    cell.read = mine;
}

void check_write_after_reads(Cell& cell, bool atomic, const void* pc) {
    races(cell.read, true, atomic, false, pc);
    if (cell.more >= 0)
        for (const Access& reader : readers[cell.more]) races(reader, true, atomic, false, pc);
    if (cell.other_blocks_read && ordered(cell.read)) report(READ_WRITE, pc, &cell.read);
}

void check(Cell& cell, bool write, bool atomic, bool shared, const void* pc) {
    const Thread& thread = current->thread;
    const Access mine = {pc,       block.epoch,   current->clock[thread.lane],
                         block.id, thread.linear, atomic};
    if (shared && !write && !cell.write.pc) report(UNWRITTEN, pc, nullptr);
    races(cell.write, write, atomic, true, pc);
    if (write && cell.copies) report(READ_WRITE, pc, &cell.copy);
    if (!write) {
        remember_read(cell, mine);
        return;
    }
    check_write_after_reads(cell, atomic, pc);
    cell.write = mine;
}

// Whether bytes are shared memory; then `cell` is the first of theirs.
bool is_shared(uintptr_t address, unsigned size, Cell*& cell) {
    const uintptr_t fixed = (uintptr_t)kernel->shared_begin, flexible = (uintptr_t)dynamic_begin;
    if (address >= fixed && address + size <= (uintptr_t)kernel->shared_end)
        cell = of_static.data() + (address - fixed) / 2;
    else if (address >= flexible && address + size <= (uintptr_t)dynamic_end)
        cell = of_dynamic.data() + (address - flexible) / 2;
    else
        return false;
    return true;
}

// The array that holds these bytes, and the first of their cells; null if there is none.
const Region* region_of(uintptr_t address, unsigned size, Cell*& cell) {
    for (size_t i = 0; i < regions.size(); i++)
        if (address >= regions[i].begin && address + size <= regions[i].end) {
            cell = of_region[i].data() + (address - regions[i].begin) / 2;
            return &regions[i];
        }
    return nullptr;
}

void access(uintptr_t address, unsigned size, bool write, bool atomic, const void* pc) {
    if (!checks || !current) return;
    const uintptr_t stack = (uintptr_t)current->fiber.stack;
    if (address >= stack && address < stack + STACK_BYTES) return;  // registers and local memory
    Cell* cell = nullptr;
    const Region* region = nullptr;
    if (!is_shared(address, size, cell)) {
        region = region_of(address, size, cell);
        if (!region) {
            report(OUTSIDE, pc, nullptr);
            char text[160];
            snprintf(text, sizeof text, "out of bounds: a %s of %u bytes by thread %u of block %u",
                     write ? "write" : "read", size, current->thread.linear, block.id);
            failure = text;
            leave(current->fiber);
        }
        if (write && region->readonly) report(CONST, pc, nullptr);
    }
    if (address % std::min(size, 16u)) report(MISALIGNED, pc, nullptr);
    if (checks & MEMORY && !(region && region->readonly))
        for (unsigned i = 0; i < (size + 1) / 2; i++) check(cell[i], write, atomic, !region, pc);
    if (checks & TRAFFIC) count_access(address, size, write, pc, region);
}

}  // namespace

void begin_memory(const Region* first, size_t count) {
    regions.assign(first, first + count);
    findings.clear();
    of_region.clear();
    readers.clear();
    if (checks & MEMORY)
        for (const Region& region : regions)
            of_region.emplace_back(region.readonly ? 0 : (region.end - region.begin) / 2 + 1);
    else
        of_region.resize(count);
}

void begin_block_memory() {
    if (!(checks & MEMORY)) return;
    of_static.assign((kernel->shared_end - kernel->shared_begin) / 2 + 1, Cell{});
    of_dynamic.assign((dynamic_end - dynamic_begin) / 2 + 1, Cell{});
}

void copy_reads(uintptr_t from, unsigned size, bool arrived) {
    Cell* cell;
    const Region* region = checks & MEMORY ? region_of(from, size, cell) : nullptr;
    if (!region || region->readonly) return;
    for (unsigned i = 0; i < size / 2; i++) {
        cell[i].copies += arrived ? -1 : 1;
        if (!arrived) cell[i].copy = cell[i].read;  // which was recorded just before
    }
}

// The pc of a copy stands for its read of global memory; the byte before, for its write.
void copy_is_sent(uintptr_t to, unsigned size, const void* pc) {
    access(to, size, true, false, (const char*)pc - 1);
    Cell* cell;
    if (checks & MEMORY && is_shared(to, size, cell))
        for (unsigned i = 0; i < size / 2; i++) cell[i].write.coming = true;
}

void copy_has_arrived(uintptr_t to, unsigned size, const void* pc) {
    const Thread& thread = current->thread;
    const Access mine = {(const char*)pc - 1, block.epoch,   current->clock[thread.lane],
                         block.id,            thread.linear, false};
    Cell* cell;
    if (checks & MEMORY && is_shared(to, size, cell))
        for (unsigned i = 0; i < size / 2; i++) cell[i].write = mine;
}

void copy_is_lost(const void* pc) {
    if (checks & MEMORY) report(LOST, pc, nullptr);
}

extern "C" {

void touched(const void* p, unsigned size, int write, int atomic, const void* pc) {
    access((uintptr_t)p, size, write, atomic, pc);
}

// What the compiler calls before each access.
#define CALLER __builtin_return_address(0)
#define HOOKS(size)                                                                       \
    void __tsan_read##size(void* p) { touched(p, size, 0, 0, CALLER); }                   \
    void __tsan_write##size(void* p) { touched(p, size, 1, 0, CALLER); }                  \
    void __tsan_unaligned_read##size(void* p) { touched(p, size, 0, 0, CALLER); }         \
    void __tsan_unaligned_write##size(void* p) { touched(p, size, 1, 0, CALLER); }
HOOKS(1) HOOKS(2) HOOKS(4) HOOKS(8) HOOKS(16)
void __tsan_read_range(void* p, size_t size) { touched(p, size, 0, 0, CALLER); }
void __tsan_write_range(void* p, size_t size) { touched(p, size, 1, 0, CALLER); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

// Rows of seven numbers: where, where else, kind, times, block, thread, other thread.
__attribute__((visibility("default"))) size_t findings_into(uint64_t* rows, size_t room) {
    size_t n = 0;
    for (const auto& [key, f] : findings) {
        const uint64_t row[7] = {(uint64_t)f.at, (uint64_t)f.other, f.kind, f.times,
                                 f.block,        f.thread,          f.other_thread};
        if (n < room) memcpy(rows + 7 * n, row, sizeof row);
        n++;
    }
    return n;
}
}
