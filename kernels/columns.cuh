// Sums over rows, column by column: what the warps of a block have summed up is added in order.
//
// SETS · PARTS warps: PARTS warps have the parts of a row (rows.cuh), and each set of them has rows
// of its own.  Their sums meet in shared memory, four numbers a lane at a time.  These lie 144
// numbers behind each other, not 128, so that both halves of a lane's eight are in other banks.
#include "rows.cuh"
#define PART (32 * WIDTH)      // columns of a warp
#define ROOM (36 * WIDTH)      // numbers in shared memory for them: 144 for each four of a lane
#define QUARTERS (WIDTH / 4)   // of an access, four numbers each

// Write the sum over all sets of `sum`, which a warp has of one part, to the columns of `to` (C,)
// from part `first` on.  A barrier must come before `room` is used again.
template <int SETS, int PARTS_OF_A_ROW>
__device__ __forceinline__ void add_sets(float (&room)[SETS * PARTS_OF_A_ROW][ROOM],
                                         const float (&sum)[WIDTH], float* to, int first, int C) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int q = 0; q < QUARTERS; q++)
        *(float4*)&room[warp][144 * q + 4 * lane] =
            make_float4(sum[4 * q], sum[4 * q + 1], sum[4 * q + 2], sum[4 * q + 3]);
    __syncthreads();
    for (int k = threadIdx.x; k < PARTS_OF_A_ROW * PART / 4; k += 32 * SETS * PARTS_OF_A_ROW) {
        const int part = k / (PART / 4), q = k % QUARTERS, of_lane = k % (PART / 4) / QUARTERS;
        float4 all = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
        for (int set = 0; set < SETS; set++) {
            const float4 own =
                *(const float4*)&room[set * PARTS_OF_A_ROW + part][144 * q + 4 * of_lane];
            all = make_float4(all.x + own.x, all.y + own.y, all.z + own.z, all.w + own.w);
        }
#ifdef ODD
        const float four[4] = {all.x, all.y, all.z, all.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int c = 32 * (WIDTH * (first + part) + 4 * q + i) + of_lane;
            if (c < C) to[c] = four[i];
        }
#else
        const int c = PART * first + 4 * k;
        if (c < C) *(float4*)(to + c) = all;
#endif
    }
}
