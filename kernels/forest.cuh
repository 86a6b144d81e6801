// The token forest, seen in tiles: which tiles of keys a tile of queries must look at.
//
// Of a tile of keys, `max_end` is the largest end.  Some row of queries that begin at q0, behind the
// tile, sees something of it only if max_end > q0.

// The last such tile before tile t, or −1.  Every warp looks at 32 tiles at a time and comes to the same
// answer.
__device__ __forceinline__ int tile_before(const int* max_end, int t, int q0) {
    for (int first = t - 1; first >= 0; first -= 32) {
        const int mine = first - (int)(threadIdx.x % 32);
        const unsigned seen = __ballot_sync(ALL_LANES, mine >= 0 && max_end[mine] > q0);
        if (seen) return first - (__ffs(seen) - 1);
    }
    return -1;
}
