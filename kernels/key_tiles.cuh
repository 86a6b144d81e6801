// Tiles of keys for a block of queries: their copies and their mask.
#include "attention_tile.cuh"
#include "tile_walk.cuh"

// Send copies of a tile of keys, values and ends; q points to row 0 of a head's queries.
template <int THREADS, typename Shared>
__device__ __forceinline__ void copy_tile(Shared& shared, int turn, const real* q, const int* end,
                                          unsigned C, int tile, int N) {
    const shared_address to = address_of(shared.k_v[turn]);
    copy_rows<KEYS, THREADS>(to, q + C, 3 * C, tile * KEYS, N);
    copy_rows<KEYS, THREADS>(to + KEYS * ROW_BYTES, q + 2 * C, 3 * C, tile * KEYS, N);
    copy_numbers<KEYS, THREADS>(address_of(shared.ends[turn]), end, tile * KEYS, N);
}

// Put `hidden` where a row of the warp, from `first_row` on, does not see one of K keys, from
// `first_key` on, whose ends are at `ends`.
template <int GROUPS, int K>
__device__ __forceinline__ void hide(float (&s)[GROUPS][K / 8][4], const int* ends, int first_key,
                                     int first_row, float hidden) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < K / 8; n++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int column = 8 * n + 2 * t + j, key = first_key + column;
            const unsigned length = max(ends[column] - key, 0);
#pragma unroll
            for (int m = 0; m < GROUPS; m++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int row = first_row + 16 * m + 8 * half + g;
                    // key ≤ row < end  ⟺  0 ≤ row − key < length: one comparison without signs
                    if (!((unsigned)(row - key) < length)) s[m][n][2 * half + j] = hidden;
                }
        }
}
