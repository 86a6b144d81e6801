// Attention over the token forest on tensor cores, for numbers of 16 bits: forward.
//
//     row i sees row j  ⟺  j ≤ i < end[j]                         (8.1)
//     sᵢⱼ = qᵢ · kⱼ / τ                                           (8.2)
//     m′ = max(m, maxⱼ sᵢⱼ)                                       (8.5)
//     α  = exp(m − m′)                                            (8.6)
//     eᵢⱼ = exp(sᵢⱼ − m′)                                         (8.7)
//     ℓ′ = α ℓ + Σⱼ eᵢⱼ                                           (8.8)
//     a′ = α a + Σⱼ eᵢⱼ vⱼ                                        (8.9)
//     oᵢ = a / ℓ                                                  (8.10)
//     λᵢ = m + ln ℓ                                               (8.11)
//
// The same algorithm as in attention.cu.  A block has four warps, and a warp 16 queries of one
// head.  The block walks back over the tiles of KEYS keys that its queries see something of, from
// its own tile on.  While one tile is computed, the next one is copied: two tiles take turns in
// shared memory.  A warp leaves out a tile that none of its rows sees, by (8.21), and compares ends
// only in a tile that they do not see whole, by (8.22).
//
// m of (8.5) may be any number (ops/attention.py says why), so it moves only where some exp(s − m)
// of the warp would be more than 2⁸: a sum is rarely multiplied by α.  With c = log₂(e)/τ,
// exp(s − m) is 2^(c q·k − c m), one multiplication with an addition and one instruction, ex2.
// Products are of 16-bit numbers, sums are in float.  e is rounded to 16 bits before it is
// multiplied: that rounding, not the sums, sets the error.
//
// Launch: grid (H, blocks of 64 queries), 128 threads; `order` names the blocks, those with most
// tiles first, so that no long one is left at the end.
//
// The tile.  16 rows a warp leave registers for the queries and for four blocks a multiprocessor
// (D ≤ 64), which hide each other's waits.  With 32 rows a warp it is three blocks, and on an H200
// 3 to 4 % slower.
// Bytes of shared memory: 2·D·(64 + 4·64) for the queries and two tiles of k and v, 512 for ends.
//
// Bytes: the least is 8·N·C.  Each block reads each tile that it sees again, from the L2 cache:
// 4·64·D bytes for 4·64·64·D operations, 64 operations a byte.
// [sectors] λ of a head begins anywhere in a sector: eight of them are in two sectors.
#include "key_tiles.cuh"
#define WARPS 4
#define THREADS (32 * WARPS)
#define GROUPS 1
#define OWN (16 * GROUPS)   // queries of a warp
#define ROWS (OWN * WARPS)  // and of a block
#define KEEP (D <= 64)      // whether a warp's queries stay in registers
#define BLOCKS (D <= 64 ? 4 : D <= 80 ? 3 : 2)

struct Shared {
    unsigned char q[ROWS * ROW_BYTES], k_v[2][2][KEYS * ROW_BYTES];  // of two tiles, in turns
    int ends[2][KEYS];
};

// The sums of a row so far, of 16·GROUPS rows a warp; m without the factor 1/τ.
struct Sums {
    float m[GROUPS][2], total[GROUPS][2], a[GROUPS][D / 8][4];

    __device__ __forceinline__ void begin() {
        clear(a);
#pragma unroll
        for (int r = 0; r < GROUPS; r++)
            m[r][0] = m[r][1] = MINUS_INFINITY, total[r][0] = total[r][1] = 0.f;
    }
    // Raise m where a score exceeds it by so much that exp(s − m) would be more than 2⁸.
    __device__ __forceinline__ void raise(const float (&s)[GROUPS][KEYS / 8][4], float c) {
        float m_new[GROUPS][2];
        bool grows = false;
#pragma unroll
        for (int r = 0; r < GROUPS; r++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float x = s[r][0][2 * half];
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
                    x = fmaxf(x, fmaxf(s[r][n][2 * half], s[r][n][2 * half + 1]));
                m_new[r][half] = fmaxf(warp_max<4>(x), m[r][half]);  // (8.5)
                grows |= (m_new[r][half] - m[r][half]) * c > 8.f;
            }
        if (!__any_sync(ALL_LANES, grows)) return;
#pragma unroll
        for (int r = 0; r < GROUPS; r++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const bool none = m_new[r][half] == MINUS_INFINITY;  // the row has seen nothing yet
                const float less = (m[r][half] - m_new[r][half]) * c;
                const float alpha = none ? 1.f : power_of_2(less);  // (8.6)
                m[r][half] = m_new[r][half];
                total[r][half] *= alpha;
#pragma unroll
                for (int n = 0; n < D / 8; n++)
                    a[r][n][2 * half] *= alpha, a[r][n][2 * half + 1] *= alpha;
            }
    }
    // Put e in place of the scores, and add it to this lane's part of ℓ.
    __device__ __forceinline__ void weights(float (&s)[GROUPS][KEYS / 8][4], float c) {
#pragma unroll
        for (int r = 0; r < GROUPS; r++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float base = m[r][half] == MINUS_INFINITY ? 0.f : m[r][half] * c;
                float sum = 0.f;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        float& e = s[r][n][2 * half + j];
                        e = power_of_2(e * c - base);  // (8.2) (8.7)
                        sum += e;
                    }
                total[r][half] += sum;  // (8.8)
            }
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
attention_mma_forward(
    const real* __restrict__ qkv,     // (N, 3, H, D)
    const int* __restrict__ end,      // (N,)
    const int* __restrict__ max_end,  // (T,)
    const int* __restrict__ min_end,  // (T,)
    const int* __restrict__ order,    // (B,)
    real* __restrict__ o,             // (N, H, D)
    float* __restrict__ lse,          // (H, N)
    int N,
    int H,
    float scale
) {
    extern __shared__ __align__(1024) unsigned char memory[];
    Shared& shared = *(Shared*)memory;
    const int h = blockIdx.x, q0 = order[blockIdx.y] * ROWS, warp = threadIdx.x / 32;
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, first = q0 + OWN * warp;
    const unsigned C = H * D;
    const real* q = qkv + h * D;
    const int last = (min(q0 + ROWS, N) - 1) / KEYS;
    copy_rows<ROWS, THREADS>(address_of(shared.q), q, 3 * C, q0, N);
    copy_tile<THREADS>(shared, 0, q, end, C, last, N);
    commit_copies();
    TileWalk walk(max_end, last, q0);
    int turn = 0, max_now = max_end[last], min_now = min_end[last];
    wait_for_copies<0>();
    __syncthreads();
    OwnRows<GROUPS, KEEP> queries;
    queries.begin(address_of(shared.q) + warp * OWN * ROW_BYTES);
    const float c = scale * LOG2_E;
    Sums sums;
    sums.begin();
    for (;;) {
        int max_next = 0, min_next = 0;
        if (walk.next >= 0) {
            copy_tile<THREADS>(shared, turn ^ 1, q, end, C, walk.next, N);
            commit_copies();
            max_next = max_end[walk.next], min_next = min_end[walk.next];
            walk.look_ahead();
        }
        const int k0 = walk.tile * KEYS;
        if (some_visible(k0, max_now, first, OWN)) {  // (8.21)
            const shared_address keys = address_of(shared.k_v[turn]);
            float s[GROUPS][KEYS / 8][4];
            clear(s);
            inner<GROUPS, KEYS, KEEP>(s, queries, keys);  // (8.2)
            if (!all_visible(k0, KEYS, min_now, first, OWN))  // (8.22)
                hide<GROUPS, KEYS>(s, shared.ends[turn], k0, first, MINUS_INFINITY);  // (8.1)
            sums.raise(s, c);
            sums.weights(s, c);
            weigh<GROUPS, KEYS>(sums.a, s, keys + KEYS * ROW_BYTES);  // (8.9)
        }
        if (walk.next < 0) break;
        walk.step();
        max_now = max_next, min_now = min_next, turn ^= 1;
        wait_for_copies<0>();
        __syncthreads();
    }
    float factor[GROUPS][2];  // 1/ℓ
#pragma unroll
    for (int r = 0; r < GROUPS; r++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float total = warp_sum<4>(sums.total[r][half]);
            const int row = first + 16 * r + 8 * half + g;
            factor[r][half] = total > 0.f ? 1.f / total : 0.f;
            const float lambda = sums.m[r][half] * scale + logf(total);  // (8.11)
            if (t == 0 && row < N) lse[(size_t)h * N + row] = lambda;    // [sectors]
        }
    unsigned char* own = shared.q + warp * OWN * ROW_BYTES;
    write_rows<GROUPS>(o + h * D, C, sums.a, factor, own, first, N);  // (8.10)
}
