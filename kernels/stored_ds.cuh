// ds in memory: where attention_mma_dkv writes the gradients of scores, and attention_mma_dq_stored
// reads them.
//
// ds has a slab for each 64 keys, a tile, and 32 queries from the tile's first row to its largest
// end.  The slabs of tile t follow each other from start[t] on.  A slab has eight pieces of 16
// queries and 16 keys: four for its first 16 queries, four for the others.  A piece is four
// matrices of 8 × 8, in which a row is a key: a warp that has ds with its keys as rows writes each
// by one access of 128 bytes, and ldmatrix_x4_trans reads all four as a left factor whose rows are
// queries.
#define SLAB_QUERIES 32
#define PIECE (16 * 16)  // numbers
#define SLAB (SLAB_QUERIES * KEYS)

// Where the slabs begin of a head and of a tile that begins at k0.
__device__ __forceinline__ size_t slabs_at(const int* start, int k0, int h, int H) {
    return ((size_t)start[k0 / KEYS] * H + h) * SLAB;
}

// From there to a piece: for 16 queries, `row` rows behind the tile's first, and 16 of its keys, of
// which the first are number 0.
__device__ __forceinline__ size_t piece_at(int row, int keys, int H) {
    return (size_t)(row / SLAB_QUERIES * H) * SLAB +
           (row % SLAB_QUERIES / 16 * (KEYS / 16) + keys) * PIECE;
}

// Whether a tile of keys has a slab for a query.  Slabs begin at multiples of SLAB_QUERIES.
__device__ __forceinline__ bool has_slab(int row, int largest_end) {
    return row / SLAB_QUERIES * SLAB_QUERIES < largest_end;
}

// Write a warp's ds of 16·GROUPS keys and STEP queries, rounded; `piece` is that of its first keys.
template <int GROUPS, int STEP>
__device__ __forceinline__ void store_pieces(real* piece, const float (&ds)[GROUPS][STEP / 8][4]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < STEP / 16; k++)
#pragma unroll
        for (int m = 0; m < GROUPS; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float(&pair)[4] = ds[m][2 * k + i / 2];
                unsigned* matrix = (unsigned*)(piece + (k * (KEYS / 16) + m) * PIECE) +
                                   32 * (i / 2 + i % 2 * 2);  // queries, then keys
                matrix[lane] = packed(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
            }
}
