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
//                       way, with its μ and r.  At the end the sets' sums are added in order
//                       (columns.cuh), and each block writes a row of partial sums, which
//                       column_total adds.
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
// of the time (H200: 17.1 µs, now 13.5, for 8,184 rows of 768 numbers in bfloat16).
// Shared memory: two numbers for each warp and row, in two places by turns, so that a row needs one
// barrier; and a part's sums for each warp.
#include "columns.cuh"
#include "reduce.cuh"
#ifndef PARTS
#define PARTS 3
#endif
#define FORWARD_WARPS 8
#ifdef ODD
#define FORWARD_BLOCKS 1
#else
#define FORWARD_BLOCKS (PARTS <= 8 ? 3 : 2)  // of a multiprocessor, at least
#endif
#define EARLY (PARTS <= 3)  // more parts of γ and β would take registers of other warps
#define SETS (PARTS <= 12 ? 12 / PARTS : 1)
#define BLOCKS (PARTS <= 12 ? 768 / (32 * PARTS * SETS) : 1)  // of a multiprocessor, at least

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
    uint4 own[PARTS];
#pragma unroll
    for (int p = 0; p < PARTS; p++) own[p] = read_part(x + (size_t)n * C, p, C);
    uint4 scales[PARTS], shifts[PARTS];
#pragma unroll
    for (int p = 0; p < PARTS; p++)
        if (EARLY) scales[p] = read_part(gamma, p, C), shifts[p] = read_part(beta, p, C);
    float sum = 0.f, squares = 0.f, row[WIDTH];
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
        if (!in_row(p, 0, C)) continue;
        unpack(row, own[p], real());
#pragma unroll
        for (int i = 0; i < WIDTH; i++) sum += row[i];
    }
    const float mu = warp_sum<32>(sum) / C;  // (4.1)
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
        if (!in_row(p, 0, C)) continue;
        unpack(row, own[p], real());
#pragma unroll
        for (int i = 0; i < WIDTH; i++)
            if (in_row(p, i, C)) squares += (row[i] - mu) * (row[i] - mu);
    }
    const float v = warp_sum<32>(squares) / C;  // (4.2)
    const float r = 1.f / sqrtf(v + eps);       // (4.3)
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
        if (!in_row(p, 0, C)) continue;
        float scale[WIDTH], shift[WIDTH];
        unpack(row, own[p], real());
        unpack(scale, EARLY ? scales[p] : read_part(gamma, p, C), real());
        unpack(shift, EARLY ? shifts[p] : read_part(beta, p, C), real());
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            const float x_hat = (row[i] - mu) * r;  // (4.4)
            row[i] = scale[i] * x_hat + shift[i];   // (4.5)
        }
        write_part(y + (size_t)n * C, p, C, row);
    }
    if (threadIdx.x % 32 == 0) {
        mean[n] = mu;
        rstd[n] = r;
    }
}

// What a thread needs of a row first.  A row's offset has 32 bits: a register less, N · C < 2³².
struct Row {
    uint4 dy, x;
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
    const uint4 scales = read_part(gamma, part, C);
    float dgamma[WIDTH] = {}, dbeta[WIDTH] = {};
    auto read = [&](int n) {
        Row row = {};
        if (n < N) {
            row.dy = read_part(dy + (unsigned)n * C, part, C);
            row.x = read_part(x + (unsigned)n * C, part, C);
            row.mu = mean[n];
            row.r = rstd[n];
        }
        return row;
    };
    const int stride = R * SETS;
    int n = blockIdx.x * SETS + set, place = 0;
    Row next = read(n);
    const int rows = N;  // a set without a row takes its turn, too: barriers are in it
    for (; n - set < rows; n += stride) {
        const Row row = next;
        const bool exists = n < N;
        const float mu = row.mu, r = row.r;
        uint4 passing = make_uint4(0, 0, 0, 0);
        if (d_residual && exists) passing = read_part(d_residual + (unsigned)n * C, part, C);
        next = read(n + stride);
        float d[WIDTH], x_hat[WIDTH], scale[WIDTH], sum_g = 0.f, sum_g_x_hat = 0.f;
        if (exists) {
            unpack(d, row.dy, real());
            unpack(x_hat, row.x, real());
            unpack(scale, scales, real());
#pragma unroll
            for (int i = 0; i < WIDTH; i++) {
                x_hat[i] = (x_hat[i] - mu) * r;             // (4.4)
                dgamma[i] += d[i] * x_hat[i];               // (4.6)
                dbeta[i] += d[i];                           // (4.7)
                const float g = __fmul_rn(scale[i], d[i]);  // (4.8)
                sum_g += g;
                sum_g_x_hat += g * x_hat[i];
            }
        }
        sum_g = warp_sum<32>(sum_g);
        sum_g_x_hat = warp_sum<32>(sum_g_x_hat);
        place = 1 - place;
        if (threadIdx.x % 32 == 0) sums[place][set][part] = make_float2(sum_g, sum_g_x_hat);
        __syncthreads();
        // Unpacked again: 16 bytes of a row take fewer registers than its numbers; (4.8) is rounded
        // as it was for the sum: with C = 1 nothing of it is left without its mean.
        if (exists) {
            float2 all = make_float2(0.f, 0.f);
#pragma unroll
            for (int p = 0; p < PARTS; p++) {
                all.x += sums[place][set][p].x;
                all.y += sums[place][set][p].y;
            }
            const float mean_g = all.x / C, mean_g_x_hat = all.y / C;  // (4.18) (4.19)
            float d_row[WIDTH];
            unpack(d, row.dy, real());
            unpack(x_hat, row.x, real());
            unpack(scale, scales, real());
            unpack(d_row, passing, real());
#pragma unroll
            for (int i = 0; i < WIDTH; i++) {
                x_hat[i] = (x_hat[i] - mu) * r;                          // (4.4)
                const float g = __fmul_rn(scale[i], d[i]);               // (4.8)
                d_row[i] += r * (g - mean_g - x_hat[i] * mean_g_x_hat);  // (4.20) (4.21)
            }
            write_part(dx + (unsigned)n * C, part, C, d_row);
        }
    }
    float* to = partial + (size_t)blockIdx.x * 2 * C;
    add_sets<SETS, PARTS>(room, dgamma, to, 0, C);
    __syncthreads();
    add_sets<SETS, PARTS>(room, dbeta, to + C, 0, C);
}
