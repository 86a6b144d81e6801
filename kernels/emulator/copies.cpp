// Asynchronous copies: what has been sent and has not arrived.
//
// A GPU may deliver such a copy at any moment from where it is sent to where its thread waits for
// it.  Here it arrives as late as it may, at the wait; so whoever does not wait reads what was
// there before.  A copy whose thread never waits for it never arrives.
#include <cstring>
#include <vector>

#include "machine.h"

namespace {

struct Copy {
    unsigned char* to;
    const void* from;  // null: zeros
    unsigned char bytes[16];
    int size, group;
    const void* pc;
};
struct Sent {
    std::vector<Copy> copies;  // in their order, without those that have arrived
    int groups = 0;            // that were committed; the next copy belongs to the group after them
};
std::vector<Sent> sent;  // by each thread of the block

bool within(const void* p, const char* begin, const char* end) { return p >= begin && p < end; }

bool is_shared(const void* p) {
    return within(p, kernel->shared_begin, kernel->shared_end) ||
           within(p, dynamic_begin, dynamic_end);
}

}  // namespace

void begin_block_copies() {
    sent.resize(runners.size());
    for (Sent& mine : sent) {
        mine.copies.clear();
        mine.groups = 0;
    }
}

extern "C" void send_copy(void* to, const void* from, int size, int exists, int line,
                          const void* pc) {
    if (size != 4 && size != 8 && size != 16)
        stop_kernel("an asynchronous copy moves 4, 8 or 16 bytes", line);
    if (!is_shared(to) || (exists && is_shared(from)))
        stop_kernel("an asynchronous copy goes from global to shared memory", line);
    Sent& mine = sent[current->thread.linear];
    Copy copy = {(unsigned char*)to, exists ? from : nullptr, {}, size, mine.groups, pc};
    if (exists) {
        touched(from, size, 0, 0, pc);
        copy_reads((uintptr_t)from, size, false);
        memcpy(copy.bytes, from, size);
    }
    copy_is_sent((uintptr_t)to, size, pc);
    mine.copies.push_back(copy);
}

extern "C" void close_copies() { sent[current->thread.linear].groups++; }

extern "C" void let_copies_arrive(int left) {
    Sent& mine = sent[current->thread.linear];
    size_t arrived = 0;
    for (const Copy& copy : mine.copies) {
        if (copy.group >= mine.groups - left) break;
        memcpy(copy.to, copy.bytes, copy.size);
        if (copy.from) copy_reads((uintptr_t)copy.from, copy.size, true);
        copy_has_arrived((uintptr_t)copy.to, copy.size, copy.pc);
        arrived++;
    }
    mine.copies.erase(mine.copies.begin(), mine.copies.begin() + arrived);
}

void end_thread_copies() {
    for (const Copy& copy : sent[current->thread.linear].copies) copy_is_lost(copy.pc);
}
