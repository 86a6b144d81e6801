// From tile to tile of keys, for a block of queries.
#include "forest.cuh"

// The way back from a tile to those before it that queries from q0 on see something of.  While one
// tile is computed, the next is known already, so that its copies are under way.
struct TileWalk {
    const int* max_end;
    int q0, tile, next;  // next: −1 after the first tile
    int candidate;       // max_end of a tile before `next`, each lane another

    __device__ __forceinline__ TileWalk(const int* max_end, int last, int q0)
        : max_end(max_end), q0(q0), tile(last), next(tile_before(max_end, last, q0)) {}
    // Begin to read what `step` needs.
    __device__ __forceinline__ void look_ahead() {
        const int mine = next - 1 - (int)(threadIdx.x % 32);
        candidate = mine >= 0 ? max_end[mine] : -1;
    }
    __device__ __forceinline__ void step() {
        const unsigned seen = __ballot_sync(ALL_LANES, candidate > q0);
        tile = next;
        next = seen ? next - __ffs(seen) : tile_before(max_end, next - 32, q0);
    }
};
