// Attention of one new row a sequence, over the key/value cache.
//
//     sᵢⱼ = qᵢ · kⱼ / τ                                           (8.2)
//     m′ = max(m, maxⱼ sᵢⱼ)                                       (8.5)
//     α  = exp(m − m′)                                            (8.6)
//     eᵢⱼ = exp(sᵢⱼ − m′)                                         (8.7)
//     ℓ′ = α ℓ + Σⱼ eᵢⱼ                                           (8.8)
//     a′ = α a + Σⱼ eᵢⱼ vⱼ                                        (8.9)
//     m_z = maxⱼ sᵢⱼ                                              (30.5)
//     ℓ_z = Σⱼ exp(sᵢⱼ − m_z)                                     (30.6)
//     a_z = Σⱼ exp(sᵢⱼ − m_z) vⱼ                                  (30.7)
//     w_z = exp(m_z − m)                                          (30.8)
//     oᵢ = Σ_z w_z a_z / Σ_z w_z ℓ_z                              (30.9)
//
// Sequence b has a new row at positions[b].  It sees the rows before it and itself: the S rows of
// the prefix, which all sequences share, and after them those of its own suffix.  The keys are cut
// into Z splits of `keys` each, without a gap between prefix and suffix.
//
// decode_attention          one block per sequence, head and split: (30.5) to (30.7).  The block
//                           that has the new row's place takes its key and value from qkv, and
//                           stores them in the cache.  No other block reads that place.
//                           With `o`, the one split that there is divides by itself (30.9).
// decode_attention_combine  one block per sequence and head: (30.8) and (30.9), split by split in
//                           their order.
//
// cache_rows                one block per row of the prompts, which stores its key and value where
//                           sequences[n] and places[n] say: in a suffix, or for −1 in the prefix.
//
// Grids and arguments of the first two depend on how many rows the cache can hold, never on how
// many it holds: the positions are read on the device.  So the same launches serve every step, and
// can be captured once and replayed.  A split after the new row ends at once.
//
// Launch: decode_attention has the grid (B, H, Z) and 128 threads.  Blocks of one split and head
// follow each other, so that sequences that share a prefix read it at about the same time.
// The tile.  Four lanes share a key: each has a quarter of its features in vectors of four, and
// what the four read together is 64 bytes of float or 32 of 16 bits, whole sectors.  So a block has
// 32 keys under way, and each group of four keeps an m, an ℓ and a quarter of a in registers.  At
// the end the eight groups of a warp merge by shuffles, the four warps through shared memory, both
// by (30.8) and (30.9) without the division.
//
// Bytes, with S bytes a number: each key and value that the rows see once, which is the least; a
// prefix once for all sequences, and again from the L2 cache for each of them.  The partial sums
// are 4 (D + 2) bytes for each split, one split for 2·S·D·keys bytes.  cache_rows reads and writes
// 2·S·C bytes a row, the least.
#include "dtype.cuh"
#include "reduce.cuh"
#ifndef D
#define D 64  // features of a head: 32, 64, 80 or 128
#endif
#define THREADS 128
#define WARPS (THREADS / 32)
#define LANES 4                // that share a key
#define VECTORS (D / LANES / 4)  // of a lane, four features each
#define GROUPS (THREADS / LANES)  // keys under way

// exp(x − m); 0 for x = −∞, even if m is −∞, too, as in a group that has not seen a key yet.
__device__ __forceinline__ float exp_below(float x, float m) {
    return x == MINUS_INFINITY ? 0.f : expf(x - m);
}

__device__ __forceinline__ void copy4(const real* from, real* to) {
    *(four<real>*)to = *(const four<real>*)from;
}

// Over the groups of a warp: lanes whose features are the same.
__device__ __forceinline__ float sum_of_groups(float x) {
    for (int away = 16; away >= LANES; away /= 2) x += __shfl_xor_sync(ALL_LANES, x, away);
    return x;
}

extern "C" __global__ void __launch_bounds__(THREADS)
decode_attention(
    const real* __restrict__ qkv,       // (B, 3, H, D)
    const real* __restrict__ prefix,    // (2, H, S, D)
    real* __restrict__ suffixes,        // (2, B, H, R, D)
    const int* __restrict__ positions,  // (B,)
    float* __restrict__ partial,        // (B, H, Z, D)
    float* __restrict__ sums,           // (B, H, Z, 2)
    real* __restrict__ o,               // (B, H, D), optional
    int B,
    int H,
    int S,
    int R,
    int Z,
    int keys,
    float scale
) {
    __shared__ float a_of[WARPS][D], m_of[WARPS], l_of[WARPS];
    const int b = blockIdx.x, head = blockIdx.y, z = blockIdx.z, position = positions[b];
    const int first = z * keys;
    if (first > position) return;  // nothing of this split is seen
    const int end = min(first + keys, position + 1);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int own = lane % LANES * 4;  // the lane's features: from here every LANES * 4
    // This head's q, its new key and its keys in the cache; how far the values are from the keys.
    const real* q = qkv + ((size_t)b * 3 * H + head) * D;
    const real* k_new = q + (size_t)H * D;
    const real* k_prefix = prefix + (size_t)head * S * D;
    real* k_suffix = suffixes + ((size_t)b * H + head) * R * D;
    const size_t of_new = (size_t)H * D, of_prefix = of_new * S, of_suffix = of_new * B * R;
    float4 own_q[VECTORS], a[VECTORS];
    for (int i = 0; i < VECTORS; i++) {
        const float4 x = load4(q + own + i * LANES * 4);
        own_q[i] = make_float4(x.x * scale, x.y * scale, x.z * scale, x.w * scale);
        a[i] = make_float4(0.f, 0.f, 0.f, 0.f);
    }
    float m = MINUS_INFINITY, l = 0.f;
    const int turns = (end - first + GROUPS - 1) / GROUPS;
#pragma unroll 1
    for (int turn = 0; turn < turns; turn++) {
        const int j = first + turn * GROUPS + threadIdx.x / LANES;
        float s = MINUS_INFINITY;
        float4 v[VECTORS] = {};
        if (j < end) {
            const bool is_new = j == position, shared = j < S;
            const real* k_row = is_new ? k_new : shared ? k_prefix + (size_t)j * D
                                                        : k_suffix + (size_t)(j - S) * D;
            const real* v_row = k_row + (is_new ? of_new : shared ? of_prefix : of_suffix);
            s = 0.f;
            for (int i = 0; i < VECTORS; i++) {
                const float4 k = load4(k_row + own + i * LANES * 4);
                v[i] = load4(v_row + own + i * LANES * 4);
                s += own_q[i].x * k.x + own_q[i].y * k.y + own_q[i].z * k.z + own_q[i].w * k.w;
            }
        }
        s = warp_sum<LANES>(s);                                        // (8.2)
        const float m_new = fmaxf(m, s);                               // (8.5) (30.5)
        const float alpha = exp_below(m, m_new), e = exp_below(s, m_new);  // (8.6) (8.7)
        l = alpha * l + e;                                             // (8.8) (30.6)
        for (int i = 0; i < VECTORS; i++)
            a[i] = make_float4(alpha * a[i].x + e * v[i].x, alpha * a[i].y + e * v[i].y,
                               alpha * a[i].z + e * v[i].z,
                               alpha * a[i].w + e * v[i].w);  // (8.9) (30.7)
        m = m_new;
    }
    if (end == position + 1 && threadIdx.x < D / 4) {
        const int d = threadIdx.x * 4;
        real* place = k_suffix + (size_t)(position - S) * D + d;
        copy4(k_new + d, place);
        copy4(k_new + of_new + d, place + of_suffix);
    }
    const float m_warp = warp_max<32>(m), w = exp_below(m, m_warp);  // (30.8)
    l = sum_of_groups(w * l);
    for (int i = 0; i < VECTORS; i++) {
        const float4 sum = make_float4(sum_of_groups(w * a[i].x), sum_of_groups(w * a[i].y),
                                       sum_of_groups(w * a[i].z), sum_of_groups(w * a[i].w));
        if (lane < LANES) store4(&a_of[warp][i * LANES * 4 + own], sum);
    }
    if (lane == 0) m_of[warp] = m_warp, l_of[warp] = l;
    __syncthreads();
    float m_all = MINUS_INFINITY, l_all = 0.f, a_all = 0.f;
    for (int i = 0; i < WARPS; i++) m_all = fmaxf(m_all, m_of[i]);
    const size_t split = ((size_t)b * H + head) * Z + z;
    const int d = threadIdx.x;
    if (d >= D) return;
    for (int i = 0; i < WARPS; i++) {
        const float w_i = exp_below(m_of[i], m_all);  // (30.8)
        l_all += w_i * l_of[i];
        a_all += w_i * a_of[i][d];
    }
    if (o) {  // the only split
        store(&o[split * D + d], a_all / l_all);  // (30.9)
        return;
    }
    partial[split * D + d] = a_all;
    if (d == 0) sums[split * 2] = m_all, sums[split * 2 + 1] = l_all;
}

extern "C" __global__ void __launch_bounds__(THREADS)
decode_attention_combine(
    const float* __restrict__ partial,  // (B, H, Z, D)
    const float* __restrict__ sums,     // (B, H, Z, 2)
    const int* __restrict__ positions,  // (B,)
    real* __restrict__ o,               // (B, H, D)
    int H,
    int Z,
    int keys
) {
    const int d = threadIdx.x, splits = positions[blockIdx.x] / keys + 1;  // with something seen
    if (d >= D) return;
    const size_t row = (size_t)blockIdx.x * H + blockIdx.y;
    const float* of_row = sums + row * Z * 2;
    float m = MINUS_INFINITY, l = 0.f, a = 0.f;
    for (int z = 0; z < splits; z++) m = fmaxf(m, of_row[2 * z]);
    for (int z = 0; z < splits; z++) {
        const float w = expf(of_row[2 * z] - m);  // (30.8)
        l += w * of_row[2 * z + 1];
        a += w * partial[(row * Z + z) * D + d];
    }
    store(&o[row * D + d], a / l);  // (30.9)
}

extern "C" __global__ void __launch_bounds__(THREADS)
cache_rows(
    const real* __restrict__ qkv,       // (N, 3, H, D)
    const int* __restrict__ sequences,  // (N,)
    const int* __restrict__ places,     // (N,)
    real* __restrict__ prefix,          // (2, H, S, D)
    real* __restrict__ suffixes,        // (2, B, H, R, D)
    int B,
    int H,
    int S,
    int R
) {
    const int b = sequences[blockIdx.x], place = places[blockIdx.x];
    const real* kv = qkv + ((size_t)blockIdx.x * 3 + 1) * H * D;
    const int numbers = 2 * H * D;  // of the key and the value
    for (int i = threadIdx.x * 4; i < numbers; i += THREADS * 4) {
        const int head = i / D % H, is_value = i / (H * D), d = i % D;
        real* in_prefix = prefix + ((size_t)(is_value * H + head) * S + place) * D + d;
        real* in_suffix = suffixes + (((size_t)(is_value * B + b) * H + head) * R + place) * D + d;
        copy4(kv + i, b < 0 ? in_prefix : in_suffix);
    }
}
