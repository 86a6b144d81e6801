// The token forest in tiles: which tiles of keys a tile of queries must load.
//
// max_end[t] is the largest end of tile t's keys.  Queries that begin at q0, after tile t, see
// something of it only if max_end[t] > q0.

// The last tile before tile t that queries from q0 on see something of, or −1.  Every warp looks at
// 32 tiles at a time, and all warps get the same answer.
__device__ __forceinline__ int tile_before(const int* max_end, int t, int q0) {
    for (int first = t - 1; first >= 0; first -= 32) {
        const int mine = first - (int)(threadIdx.x % 32);
        const unsigned seen = __ballot_sync(ALL_LANES, mine >= 0 && max_end[mine] > q0);
        if (seen) return first - (__ffs(seen) - 1);
    }
    return -1;
}
