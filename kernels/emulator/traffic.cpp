// Memory traffic: what the 32 accesses of a warp cost together.
//
// A GPU serves a warp's access as one request.  Global memory moves in sectors of 32 bytes: a
// request costs as many as its lanes touch.  The ideal is as many as its bytes would fill.  Shared
// memory has 32 banks, each four bytes wide: lanes that need different words of one bank wait for
// each other.  Wide accesses are served in parts, as many lanes at a time as fill 128 bytes; the
// ideal is one pass for each part.
//
// Lanes run one after the other here.  The k-th time that a thread of a block comes to a place in
// the code counts as the same request as the k-th time of its neighbours.  This is right where all
// lanes of a warp run a loop equally often.
#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "machine.h"

namespace {

struct Lane {
    unsigned number;
    uintptr_t address;
};
struct Place {
    uint64_t shared = 0, size = 0, write = 0, requests = 0, got = 0, ideal = 0;
    std::vector<uint32_t> visits;              // of each thread in this block
    std::vector<std::vector<Lane>> requested;  // of each visit and warp
};
std::unordered_map<const void*, Place> places;

size_t distinct(std::vector<uintptr_t>& numbers) {
    std::sort(numbers.begin(), numbers.end());
    numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
    return numbers.size();
}

void count_sectors(Place& place, const std::vector<Lane>& request) {
    std::vector<uintptr_t> addresses, sectors;
    for (const Lane& lane : request) {
        addresses.push_back(lane.address);
        const uintptr_t last = (lane.address + place.size - 1) / 32;
        for (uintptr_t s = lane.address / 32; s <= last; s++) sectors.push_back(s);
    }
    place.got += distinct(sectors);
    place.ideal += (distinct(addresses) * place.size + 31) / 32;
}

void count_banks(Place& place, const std::vector<Lane>& request) {
    const unsigned together = place.size <= 4 ? 32 : 128 / place.size;  // lanes served at once
    for (unsigned first = 0; first < 32; first += together) {
        std::vector<uintptr_t> words;
        for (const Lane& lane : request)
            if (lane.number / together == first / together) {
                const uintptr_t last = (lane.address + place.size - 1) / 4;
                for (uintptr_t w = lane.address / 4; w <= last; w++) words.push_back(w);
            }
        if (words.empty()) continue;
        distinct(words);
        unsigned bank[32] = {}, worst = 0;
        for (uintptr_t w : words) worst = std::max(worst, ++bank[w % 32]);
        place.got += worst;
        place.ideal++;
    }
}

}  // namespace

void begin_traffic() { places.clear(); }

void count_access(uintptr_t address, unsigned size, bool write, const void* pc,
                  const Region* region) {
    Place& place = places[pc];
    place.shared = !region;
    place.size = size;
    place.write = write;
    place.visits.resize(runners.size());
    const size_t warps = (runners.size() + 31) / 32;
    const size_t request = place.visits[current->thread.linear]++ * warps + current->warp;
    if (place.requested.size() <= request) place.requested.resize(request + warps);
    const bool flexible = address >= (uintptr_t)dynamic_begin && address < (uintptr_t)dynamic_end;
    const uintptr_t shared = (uintptr_t)(flexible ? dynamic_begin : kernel->shared_begin);
    const uintptr_t base = region ? region->begin : shared;  // on a GPU arrays are aligned
    place.requested[request].push_back({current->thread.lane, address - base});
}

void settle_traffic() {
    for (auto& [pc, place] : places) {
        for (const auto& request : place.requested) {
            if (request.empty()) continue;
            place.requests++;
            if (place.shared) count_banks(place, request);
            else count_sectors(place, request);
        }
        place.requested.clear();
        std::fill(place.visits.begin(), place.visits.end(), 0);
    }
}

// Rows of seven numbers: where, shared or global, bytes an access, write, requests, got, ideal.
extern "C" __attribute__((visibility("default"))) size_t traffic_into(uint64_t* rows, size_t room) {
    size_t n = 0;
    for (const auto& [pc, p] : places) {
        const uint64_t row[7] = {(uint64_t)pc, p.shared, p.size, p.write,
                                 p.requests,   p.got,    p.ideal};
        if (n < room) memcpy(rows + 7 * n, row, sizeof row);
        n++;
    }
    return n;
}
