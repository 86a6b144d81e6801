// Layer normalisation.
//
//     μ   = (1/C) Σᵢ xᵢ                                           (4.1)
//     v   = (1/C) Σᵢ (xᵢ − μ)²                                    (4.2)
//     r   = 1 / √(v + ε)                                          (4.3)
//     x̂ᵢ  = (xᵢ − μ) r                                            (4.4)
//     yᵢ  = γᵢ x̂ᵢ + βᵢ                                            (4.5)
//     dγᵢ = Σₙ dyₙᵢ x̂ₙᵢ                                           (4.6)
//     dβᵢ = Σₙ dyₙᵢ                                               (4.7)
//     gᵢ  = γᵢ dyᵢ                                                (4.8)
//     ⟨g⟩ = (1/C) Σⱼ gⱼ                                           (4.18)
//     ⟨g x̂⟩ = (1/C) Σⱼ gⱼ x̂ⱼ                                      (4.19)
//     dxᵢ = r ( gᵢ − ⟨g⟩ − x̂ᵢ ⟨g x̂⟩ )                             (4.20)
//     dxᵢ = d_residualᵢ + r ( gᵢ − ⟨g⟩ − x̂ᵢ ⟨g x̂⟩ )               (4.21)
//
// Without `d_residual`, dx is (4.20).
//
// layer_norm_forward    a warp a row, eight rows a block.  A lane has WIDTH neighbours of each of
//                       the row's PARTS parts (rows.cuh) in registers: memory is read once, and no
//                       warp waits for another.  In short rows γ and β are read together with the
//                       row (8,184 rows of 768 numbers: 7.6 µs, not 8.3).  C is at most 2,048.
// layer_norm_backward   R blocks of SETS sets of PARTS warps.  A set takes every R·SETS-th row, a
//                       warp one part of it.  So a thread has the same WIDTH features of every row,
//                       and sums its part of dγ and dβ in as many registers, whatever C is.  The
//                       sums over a row meet in shared memory; meanwhile the next row is on its
//                       way: dy, x, d_residual, μ and r.  Across that barrier a thread keeps gᵢ and
//                       xᵢ − μ, and since x̂ᵢ = (xᵢ − μ) r, what is left of (4.21) is
//                       d_residualᵢ + r (gᵢ − ⟨g⟩) − (r² ⟨g x̂⟩) (xᵢ − μ).  At the end the sets'
//                       sums are added in order (columns.cuh), and each block writes a row of
//                       partial sums, which column_total adds.
// An offset of a number has 32 bits: N · C < 2³².
//
// The forward pass saves μ and r, two numbers a row, and not x̂: recomputing it costs a subtraction
// and a product.
//
// Bytes, with S bytes a number: forward reads x and writes y, 2·S·N·C; backward reads dy, x,
// d_residual and writes dx, 4·S·N·C (or 3).  Both are the least, apart from 16·C·R bytes of partial
// sums, written and read.
// Tile: memory at its full rate has 30 KB of each multiprocessor's reads under way.  The backward
// pass has 768 threads there, with 48 bytes each for the next row: 37 KB.  The next row's μ and r
// come with it: read when they are needed, they were a wait of 600 clocks in every row, and a fifth
// of the time (H200: 17.1 µs, then 13.5, for 8,184 rows of 768 numbers in bfloat16).
// Instructions: in the time in which an H200's memory moves 512 bytes, a multiprocessor begins 100
// instructions or so; a warp moves four times as much of its part of a row.  The loop of the
// backward pass had 330, and has 210: it keeps gᵢ and xᵢ − μ across the barrier, its offsets have
// 32 bits, a product with 1/C stands for two divisions, and it takes two rows a turn, so that no
// register is moved.  The forward pass has 379 for the 3,072 bytes of a row of 768 numbers, and had
// 464: it converts a row once.  (Counted in the code for sm_90, in bfloat16.)
// Shared memory: two numbers for each warp and row, in two places by turns, so that a row needs one
// barrier; and a part's sums for each warp.
#include "columns.cuh"
#include "reduce.cuh"
#ifndef PARTS
#define PARTS 3
#endif
#define FORWARD_WARPS 8
// FORWARD_BLOCKS and BLOCKS of a multiprocessor, at least.
#ifdef ODD
#define WHOLE(p) false  // whether a row has all numbers of a part
#define FORWARD_BLOCKS 1
#define BLOCKS (PARTS > 8 ? 1 : 2)
#else
#define WHOLE(p) (p < PARTS - 1)
#define FORWARD_BLOCKS (PARTS * WIDTH <= 40 ? 3 : PARTS * WIDTH <= 56 ? 2 : 1)
#define BLOCKS (PARTS <= 12 ? 768 / (32 * PARTS * SETS) : 1)
#endif
#define EARLY (PARTS <= 3)  // more parts of γ and β would take registers of other warps
#define SETS (PARTS <= 12 ? 12 / PARTS : 1)

extern "C" __global__ void __launch_bounds__(32 * FORWARD_WARPS, FORWARD_BLOCKS)
layer_norm_forward(
    const real* __restrict__ x,      // (N, C)
    const real* __restrict__ gamma,  // (C,)
    const real* __restrict__ beta,   // (C,)
    real* __restrict__ y,            // (N, C)
    float* __restrict__ mean,        // (N,)
    float* __restrict__ rstd,        // (N,)
    int N,
    int C,
    float eps
) {
    const int n = blockIdx.x * FORWARD_WARPS + threadIdx.x / 32;
    if (n >= N) return;
    const unsigned first = (unsigned)n * C;
    const float share = 1.f / C;
    uint4 own[PARTS], scales[PARTS], shifts[PARTS];
#pragma unroll
    for (int p = 0; p < PARTS; p++) own[p] = read_part(x, p, C, first);
#pragma unroll
    for (int p = 0; p < PARTS; p++)
        if (EARLY) scales[p] = read_part(gamma, p, C), shifts[p] = read_part(beta, p, C);
    float row[PARTS][WIDTH], sum = 0.f, squares = 0.f;
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
        unpack(row[p], own[p], real());
#pragma unroll
        for (int i = 0; i < WIDTH; i++) sum += row[p][i];  // behind the row's end there are zeros
    }
    const float mu = warp_sum<32>(sum) * share;  // (4.1)
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            row[p][i] = WHOLE(p) || in_row(p, i, C) ? row[p][i] - mu : 0.f;
            squares += row[p][i] * row[p][i];
        }
    }
    const float v = warp_sum<32>(squares) * share;  // (4.2)
    const float r = 1.f / sqrtf(v + eps);           // (4.3)
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
        float scale[WIDTH], shift[WIDTH];
        unpack(scale, EARLY ? scales[p] : read_part(gamma, p, C), real());
        unpack(shift, EARLY ? shifts[p] : read_part(beta, p, C), real());
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            const float x_hat = row[p][i] * r;        // (4.4)
            row[p][i] = scale[i] * x_hat + shift[i];  // (4.5)
        }
        write_part(y, p, C, row[p], first);
    }
    if (threadIdx.x % 32 == 0) {
        mean[n] = mu;
        rstd[n] = r;
    }
}

// What a thread needs of a row.
struct Row {
    uint4 dy, x, residual;
    float mu, r;
};

extern "C" __global__ void __launch_bounds__(32 * PARTS * SETS, BLOCKS)
layer_norm_backward(
    const real* __restrict__ dy,          // (N, C)
    const real* __restrict__ x,           // (N, C)
    const real* __restrict__ gamma,       // (C,)
    const float* __restrict__ mean,       // (N,)
    const float* __restrict__ rstd,       // (N,)
    const real* __restrict__ d_residual,  // (N, C), optional
    real* __restrict__ dx,                // (N, C)
    float* __restrict__ partial,          // (R, 2, C)
    int N,
    int C,
    int R
) {
    __shared__ __align__(16) float room[SETS * PARTS][ROOM];
    __shared__ float2 sums[2][SETS][PARTS];
    const int part = threadIdx.x / 32 % PARTS, set = threadIdx.x / 32 / PARTS;
    const int stride = R * SETS, turns = (N + stride - 1) / stride;
    const bool mine = in_row(part, 0, C);
    const float share = 1.f / C;
    float dgamma[WIDTH] = {}, dbeta[WIDTH] = {};
    auto read = [&](int n) {
        const unsigned first = (unsigned)n * C;
        Row row = {};
        row.dy = read_part(dy, part, C, first);
        row.x = read_part(x, part, C, first);
        if (d_residual) row.residual = read_part(d_residual, part, C, first);
        row.mu = mean[n];
        row.r = rstd[n];
        return row;
    };
    int n = blockIdx.x * SETS + set, place = 0;
    Row next = {};
    if (mine && n < N) next = read(n);
#pragma unroll 2
    for (int turn = 0; turn < turns; turn++, n += stride) {  // in all sets: barriers are in it
        const Row row = next;
        if (mine && n + stride < N) next = read(n + stride);
        float g[WIDTH], centred[WIDTH], sum_g = 0.f, sum_g_x_hat = 0.f;
        if (mine && n < N) {
            float d[WIDTH];
            unpack(d, row.dy, real());
            unpack(centred, row.x, real());
            unpack(g, read_part(gamma, part, C), real());
#pragma unroll
            for (int i = 0; i < WIDTH; i++) {
                centred[i] -= row.mu;
                const float x_hat = centred[i] * row.r;  // (4.4)
                dgamma[i] += d[i] * x_hat;               // (4.6)
                dbeta[i] += d[i];                        // (4.7)
                g[i] = __fmul_rn(g[i], d[i]);            // (4.8)
                sum_g += g[i];
                sum_g_x_hat += g[i] * x_hat;
            }
        }
        sum_g = warp_sum<32>(sum_g);
        sum_g_x_hat = warp_sum<32>(sum_g_x_hat);
        place = 1 - place;
        if (threadIdx.x % 32 == 0) sums[place][set][part] = make_float2(sum_g, sum_g_x_hat);
        __syncthreads();
        if (mine && n < N) {
            float2 all = make_float2(0.f, 0.f);
#pragma unroll
            for (int p = 0; p < PARTS; p++) {
                all.x += sums[place][set][p].x;
                all.y += sums[place][set][p].y;
            }
            const float mean_g = all.x * share, mean_g_x_hat = all.y * share;  // (4.18) (4.19)
            const float slope = row.r * row.r * mean_g_x_hat;
            float d_row[WIDTH];
            unpack(d_row, row.residual, real());
#pragma unroll
            for (int i = 0; i < WIDTH; i++) {  // (4.20) (4.21)
                d_row[i] += row.r * (g[i] - mean_g);
                d_row[i] -= slope * centred[i];
            }
            write_part(dx, part, C, d_row, (unsigned)n * C);
        }
    }
    float* to = partial + (size_t)blockIdx.x * 2 * C;
    add_sets<SETS, PARTS>(room, dgamma, to, 0, C);
    __syncthreads();
    add_sets<SETS, PARTS>(room, dbeta, to + C, 0, C);
}
