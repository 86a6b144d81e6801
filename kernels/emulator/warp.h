// What the lanes of a warp do together: shuffles, votes, and the barrier.
#pragma once
#include "thread.h"

// The value of another lane.  The lane must exist and take part.
template <class T> UNWATCHED T lane_value(unsigned mask, T mine, int source, int line) {
    static_assert(sizeof(T) <= 8, "a shuffle moves 4 or 8 bytes");
    const unsigned char* all = warp_gather(mask, &mine, sizeof mine, line, 0);
    if (!(present(mask) >> source & 1))
        stop_kernel("a shuffle reads a lane that takes no part in it", line);
    T value;
    memcpy(&value, all + 32 * source, sizeof value);
    return value;
}

// Each form of shuffle computes the lane to read; outside its group of `width` a lane reads itself.
template <class T> T shuffle(int line, unsigned mask, T mine, int source, int width = 32) {
    return lane_value(mask, mine, (lane_of() & ~(width - 1)) | (source & (width - 1)), line);
}
template <class T> T shuffle_xor(int line, unsigned mask, T mine, int bits, int width = 32) {
    const int lane = lane_of(), source = lane ^ bits;
    return lane_value(mask, mine, source / width > lane / width ? lane : source, line);
}
template <class T> T shuffle_down(int line, unsigned mask, T mine, int away, int width = 32) {
    const int lane = lane_of();
    return lane_value(mask, mine, (lane & (width - 1)) + away < width ? lane + away : lane, line);
}
template <class T> T shuffle_up(int line, unsigned mask, T mine, int away, int width = 32) {
    const int lane = lane_of();
    return lane_value(mask, mine, (lane & (width - 1)) >= away ? lane - away : lane, line);
}
#define __shfl_sync(...) shuffle(__LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...) shuffle_xor(__LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) shuffle_down(__LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) shuffle_up(__LINE__, __VA_ARGS__)

UNWATCHED inline unsigned ballot(int line, unsigned mask, int value) {
    const unsigned char mine = value != 0, *all = warp_gather(mask, &mine, 1, line, 0);
    unsigned result = 0;
    for (int lane = 0; lane < 32; lane++)
        if (present(mask) >> lane & 1 && all[32 * lane]) result |= 1u << lane;
    return result;
}
#define __ballot_sync(mask, value) ballot(__LINE__, mask, value)
#define __any_sync(mask, value) (ballot(__LINE__, mask, value) != 0)
#define __all_sync(mask, value) (ballot(__LINE__, mask, value) == present(mask))

inline void warp_barrier(int line, unsigned mask = 0xffffffffu) {
    warp_gather(mask, "", 1, line, 1);
}
#define __syncwarp(...) warp_barrier(__LINE__, ##__VA_ARGS__)
