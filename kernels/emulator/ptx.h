// The GPU instructions that kernels use through assembly, in C++.
//
// A kernel wraps such an instruction in a function of its own, which calls one of these where
// EMULATED is defined.  Operands are laid out over the lanes of a warp as the PTX manual draws
// them.
#pragma once
#include "thread.h"

namespace emulated {

UNWATCHED inline float f16_to_float(unsigned short bits) {
    _Float16 x;
    memcpy(&x, &bits, 2);
    return (float)x;
}
UNWATCHED inline unsigned short float_to_f16(float x) {
    const _Float16 rounded = (_Float16)x;
    unsigned short bits;
    memcpy(&bits, &rounded, 2);
    return bits;
}
UNWATCHED inline float bf16_to_float(unsigned short bits) {
    const unsigned wide = (unsigned)bits << 16;
    float x;
    memcpy(&x, &wide, 4);
    return x;
}

// mma.m16n8k16: d (16, 8) += a (16, 16) b (16, 8), a and b in 16 bits, d in float.  With
// g = lane / 4 and t = lane % 4, a lane holds, two numbers a register,
//   a[0] (g, 2t)  a[1] (g + 8, 2t)  a[2] (g, 2t + 8)  a[3] (g + 8, 2t + 8)
//   b[0] (2t, g)  b[1] (2t + 8, g)
//   d[0] (g, 2t)  d[1] (g, 2t + 1)  d[2] (g + 8, 2t)  d[3] (g + 8, 2t + 1)
// Sums go from k = 0 up, in float; NVIDIA does not document how a GPU rounds inside.
template <float (*WIDE)(unsigned short)>
UNWATCHED inline void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                   int line) {
    const unsigned mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    const unsigned char* all = warp_gather(0xffffffffu, mine, sizeof mine, line, 0);
    const auto half = [all](int lane, int reg, int upper) UNWATCHED {
        unsigned short bits;
        memcpy(&bits, all + 32 * lane + 4 * reg + 2 * upper, 2);
        return WIDE(bits);
    };
    const int g = lane_of() / 4, t = lane_of() % 4;
    for (int i = 0; i < 4; i++) {
        const int row = g + (i >= 2 ? 8 : 0), column = 2 * t + i % 2;
        for (int k = 0; k < 16; k++) {
            const float x = half(row % 8 * 4 + k % 8 / 2, (row >= 8) + 2 * (k >= 8), k % 2);
            const float y = half(column * 4 + k % 8 / 2, 4 + (k >= 8), k % 2);
            d[i] += x * y;
        }
    }
}

// ldmatrix.x4: four 8 × 8 matrices of 16-bit numbers from shared memory.  Lane i passes the address
// of row i % 8 of matrix i / 8, 16 bytes; it gets two neighbours of row lane / 4 of each matrix,
// or, transposed, of its column.  The lanes that pass an address read that row.
template <bool TRANSPOSED>
UNWATCHED inline void ldmatrix_x4(unsigned (&r)[4], const void* row, int line) {
    touched(row, 16, 0, 0, __builtin_return_address(0));
    unsigned char mine[16];
    memcpy(mine, row, 16);
    const unsigned char* all = warp_gather(0xffffffffu, mine, 16, line, 0);
    const int g = lane_of() / 4, t = lane_of() % 4;
    for (int matrix = 0; matrix < 4; matrix++)
        for (int k = 0; k < 2; k++) {
            const int i = TRANSPOSED ? 2 * t + k : g, j = TRANSPOSED ? g : 2 * t + k;
            memcpy((char*)&r[matrix] + 2 * k, all + 32 * (8 * matrix + i) + 2 * j, 2);
        }
}

// cp.async: 4, 8 or 16 bytes from global to shared memory, both at a multiple of as many; zeros
// where there is nothing to copy, and then `from` is not read.
UNWATCHED inline void copy_async(void* to, const void* from, int bytes, bool exists, int line) {
    send_copy(to, from, bytes, exists, line, __builtin_return_address(0));
}

// cp.async.commit_group: this thread's copies since the last call form a group.
UNWATCHED inline void copies_committed(int) { close_copies(); }

// cp.async.wait_group: this thread's groups have arrived, but for the `left` last ones.
UNWATCHED inline void copies_wait(int left, int line) {
    if (left < 0) stop_kernel("a wait leaves less than no group of copies", line);
    let_copies_arrive(left);
}

}  // namespace emulated
