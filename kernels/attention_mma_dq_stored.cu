// Attention over the token forest on tensor cores: the gradient of the queries, from ds in memory.
//
//     dqᵢ = (1/τ) Σⱼ dsᵢⱼ kⱼ                                      (8.19)
//
// attention_mma_dq makes the scores, p and dp once more to have ds.  Where attention_mma_dkv stored
// ds (stored_ds.cuh), this product is all that is left.  A block owns queries of one head and walks
// back over their tiles of keys, as attention_mma.cu does, by (8.21).  No mask is needed: ds is 0
// where a query does not see a key.  The sums have the order of attention_mma_dq, so the result has
// the same bits.
//
// Launch: grid (H, blocks of ROWS queries), 128 threads; `order` names the blocks, those with most
// tiles first.
//
// The tile.  A warp reads the pieces of ds of its own rows, which no other needs, and the block
// shares keys.  Both are copied a tile ahead.  An H200's memory needs 32 KB on their way to each
// multiprocessor to be busy: four blocks have 64 KB of ds where D = 64, three 24 where D = 128.
// Bytes of shared memory: 256·ROWS + 256·D.
//
// Bytes: the least is 4·N·C, k and dq, and 2 for each query and key of a slab, four fifths of all.
// Each block reads each tile of keys that it sees again, from the L2 cache.  2·D operations a pair
// are few: memory sets the time.
#include "attention_tile.cuh"
#include "stored_ds.cuh"
#include "tile_walk.cuh"
#define WARPS 4
#define THREADS (32 * WARPS)
#define GROUPS (D <= 80 ? 2 : 1)
#define OWN (16 * GROUPS)            // queries of a warp
#define ROWS (OWN * WARPS)           // and of a block
#define PIECES (GROUPS * KEYS / 16)  // of a warp in a tile

struct Shared {
    real ds[WARPS][2][PIECES * PIECE];  // of two tiles, in turns
    unsigned char k[2][KEYS * ROW_BYTES];
};

// Send copies of the warp's own pieces of ds in a tile.
__device__ __forceinline__ void copy_pieces(shared_address to, const real* pieces) {
#pragma unroll
    for (int e = threadIdx.x % 32; e < PIECES * PIECE / 8; e += 32)
        copy_async<16>(to + 16 * e, pieces + 8 * e, true);
}

extern "C" __global__ void __launch_bounds__(THREADS, D <= 64 ? 4 : 3)
attention_mma_dq_stored(
    const real* __restrict__ qkv,        // (N, 3, H, D)
    const int* __restrict__ max_end,     // (T,)
    const int* __restrict__ order,       // (B,)
    const int* __restrict__ start,       // (T,)
    const real* __restrict__ ds_stored,  // (S, H, 2048)
    real* __restrict__ dqkv,             // (N, 3, H, D)
    int N,
    int H,
    float scale
) {
    extern __shared__ __align__(1024) unsigned char memory[];
    Shared& shared = *(Shared*)memory;
    const int h = blockIdx.x, q0 = order[blockIdx.y] * ROWS, warp = threadIdx.x / 32;
    const int first = q0 + OWN * warp;
    const int last = (min(q0 + ROWS, N) - 1) / KEYS;
    const unsigned C = H * D;
    const auto copy_tile = [&](int turn, int tile, int max_end) {
        const int k0 = tile * KEYS;
        copy_rows<KEYS, THREADS>(address_of(shared.k[turn]), qkv + C + h * D, 3 * C, k0, N);
        if (some_visible(k0, max_end, first, OWN))  // (8.21)
            copy_pieces(address_of(shared.ds[warp][turn]),
                        ds_stored + slabs_at(start, k0, h, H) + piece_at(first - k0, 0, H));
        commit_copies();
    };
    int turn = 0, max_now = max_end[last];
    copy_tile(turn, last, max_now);
    TileWalk walk(max_end, last, q0);
    float dq[GROUPS][D / 8][4];
    clear(dq);
    for (;;) {
        wait_for_copies<0>();
        __syncthreads();
        int max_next = 0;
        if (walk.next >= 0) {
            max_next = max_end[walk.next];
            copy_tile(turn ^ 1, walk.next, max_next);
            walk.look_ahead();
        }
        if (some_visible(walk.tile * KEYS, max_now, first, OWN)) {  // (8.21)
            const shared_address ds = address_of(shared.ds[warp][turn]) + 16 * (threadIdx.x % 32);
            const shared_address keys = address_of(shared.k[turn]) + left_lane();
#pragma unroll 2
            for (int n = 0; n < KEYS / 16; n++) {
                unsigned a[GROUPS][4];
#pragma unroll
                for (int m = 0; m < GROUPS; m++)
                    ldmatrix_x4_trans(a[m], ds + (m * (KEYS / 16) + n) * (2 * PIECE));
                add_product<GROUPS>(dq, a, keys, 16 * n);
            }
        }
        if (walk.next < 0) break;
        walk.step();
        max_now = max_next, turn ^= 1;
    }
    float factor[GROUPS][2];
#pragma unroll
    for (int m = 0; m < GROUPS; m++) factor[m][0] = factor[m][1] = scale;
    unsigned char* own = (unsigned char*)shared.ds[warp];
    write_rows<GROUPS>(dqkv + h * D, 3 * C, dq, factor, own, first, N);  // (8.19)
}
