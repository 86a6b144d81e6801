// Where the lanes of a warp meet.
//
// Lanes that call with the same mask form a group; several groups of one warp may wait at once.
// The last lane of a group to arrive releases the others, with the bytes of all.
#include <algorithm>
#include <cstring>
#include <deque>

#include "machine.h"

struct Group {
    unsigned mask = 0, arrived = 0;
    int line = 0;
    unsigned char bytes[2][32][32];  // of each lane: those that arrive, and those last released
    int arriving = 0;                // which of the two
};
static std::vector<std::deque<Group>> groups;  // of each warp, one for each mask that was used

unsigned warp_lanes(unsigned warp) {
    const unsigned count = std::min<unsigned>(32, runners.size() - 32 * warp);
    return count == 32 ? 0xffffffffu : (1u << count) - 1;
}

extern "C" unsigned present(unsigned mask) { return mask & warp_lanes(current->warp); }

void begin_block_warps() { groups.assign((runners.size() + 31) / 32, {}); }

static Group& group_of(unsigned warp, unsigned mask) {
    auto& of_warp = groups[warp];
    for (Group& group : of_warp)
        if (group.mask == mask) return group;
    of_warp.emplace_back();
    of_warp.back().mask = mask;
    return of_warp.back();
}

// Now every lane of the group knows what any of them knew of the clocks; each advances its own.
static void order_memory(unsigned warp, unsigned mask) {
    uint32_t known[32] = {};
    for (int lane = 0; lane < 32; lane++)
        if (mask >> lane & 1)
            for (int of = 0; of < 32; of++)
                known[of] = std::max(known[of], runners[32 * warp + lane].clock[of]);
    for (int lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) {
            Runner& runner = runners[32 * warp + lane];
            memcpy(runner.clock, known, sizeof known);
            runner.clock[lane]++;
        }
}

extern "C" const unsigned char* warp_gather(unsigned mask, const void* mine, unsigned size,
                                            int line, int fence) {
    const unsigned warp = current->warp, lane = current->thread.lane;
    if (!(mask >> lane & 1))
        stop_kernel("a lane calls an operation of its warp whose mask leaves it out", line);
    mask &= warp_lanes(warp);
    Group& group = group_of(warp, mask);
    if (!group.arrived) group.line = line;
    if (group.line != line) {
        const std::string others = std::to_string(group.line);
        stop_kernel(("divergent warp: other lanes wait at line " + others).c_str(), line);
    }
    auto& all = group.bytes[group.arriving];
    memcpy(all[lane], mine, size);
    group.arrived |= 1u << lane;
    current->line = line;
    current->state = State::at_warp_gather;
    if (group.arrived == mask) {
        group.arriving = 1 - group.arriving;
        group.arrived = 0;
        if (fence) order_memory(warp, mask);
        for (int i = 0; i < 32; i++)
            if (mask >> i & 1) runners[32 * warp + i].state = State::ready;
    } else {
        leave(current->fiber);
    }
    return &all[0][0];
}
