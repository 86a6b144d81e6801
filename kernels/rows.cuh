// Rows of numbers in the registers of warps, 16 bytes an access.
//
// A part of a row is what a warp reads at once: WIDTH neighbours a lane, 32·WIDTH numbers or 512
// bytes.  Where the length of a row is not a multiple of WIDTH (-DODD), rows begin anywhere: then a
// lane has WIDTH numbers of a part that are 32 apart, and reads them one by one.
#include "dtype.cuh"

// The place in a row of number i of this lane in a part.
__device__ __forceinline__ int column_of(int part, int i) {
    const int lane = threadIdx.x % 32;
#ifdef ODD
    return 32 * (WIDTH * part + i) + lane;
#else
    return WIDTH * (32 * part + lane) + i;
#endif
}

// Whether that number is one of the row's C; without ODD all WIDTH are, or none.
__device__ __forceinline__ bool in_row(int part, int i, int C) {
#ifdef ODD
    return column_of(part, i) < C;
#else
    return column_of(part, 0) < C;
#endif
}

// This lane's numbers of a part, 0 behind the row's end, as they lie in memory.  The row begins
// `first` numbers behind `row`: with 32 bits, an address is one instruction.
__device__ __forceinline__ uint4 read_part(const real* row, int part, int C, unsigned first = 0) {
#ifdef ODD
    float x[WIDTH];
#pragma unroll
    for (int i = 0; i < WIDTH; i++)
        x[i] = in_row(part, i, C) ? to_float(row[first + column_of(part, i)]) : 0.f;
    return packed(x, real());
#else
    if (!in_row(part, 0, C)) return make_uint4(0, 0, 0, 0);
    return *(const uint4*)(row + (first + column_of(part, 0)));
#endif
}

__device__ __forceinline__ void write_part(real* row, int part, int C, const float (&x)[WIDTH],
                                           unsigned first = 0) {
#ifdef ODD
#pragma unroll
    for (int i = 0; i < WIDTH; i++)
        if (in_row(part, i, C)) store(row + (first + column_of(part, i)), x[i]);
#else
    if (in_row(part, 0, C)) store16(row + (first + column_of(part, 0)), x);
#endif
}
