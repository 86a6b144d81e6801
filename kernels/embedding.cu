// Embedding: gathering rows, and adding their gradients up in a fixed order.
//
//     xₙ = wte[tₙ] + wpe[pₙ]                                      (3.1)
//     dtable[v] += Σ_{n : index[n] = v} dx[n]                     (3.2) (3.3) (3.4)
//
// embedding_forward    one block per row.
// gather_rows          out[r] = x[rows[r]]; one block per row.
// embedding_backward   launched for each table.  `order` is a stable sort of the rows by index, and
//                      runs[k] is the place in it where the k-th run of equal indices begins;
//                      behind the last run it is N.  Block k adds the rows of run k to the table,
//                      one after the other.  So each row of the table has one writer, no atomics
//                      are needed, and the rows are added in their order: the same bits each time.
//                      If one token fills a tenth of the batch, one block reads a tenth of dx; the
//                      others do not wait for it.  Blocks without a run return.
//
// Launch: 128 threads.  Forward and gathering, a warp reads 512 bytes of a row at once (rows.cuh);
// backward, a thread has four neighbouring features, and C must be a multiple of 4.
// Bytes, with S bytes a number: forward reads two rows and writes one, 3·S·N·C at most (frequent
// rows of the tables stay in cache).  Backward reads dx once, S·N·C, and reads and writes each row
// of the table that occurs, which is the least.  Gathering reads and writes each row once, 2·S·R·C.
#include "rows.cuh"
#include "add_rows.cuh"
#define THREADS 128
#define WARPS (THREADS / 32)
#define PARTS_OF(C) ((C + 32 * WIDTH - 1) / (32 * WIDTH))  // a warp's reads of a row

extern "C" __global__ void __launch_bounds__(THREADS)
embedding_forward(
    const real* __restrict__ wte,       // (V, C)
    const real* __restrict__ wpe,       // (T, C)
    const int* __restrict__ ids,        // (N,)
    const int* __restrict__ positions,  // (N,)
    real* __restrict__ x,               // (N, C)
    int C
) {
    const real* token = wte + (size_t)ids[blockIdx.x] * C;
    const real* position = wpe + (size_t)positions[blockIdx.x] * C;
    for (int part = threadIdx.x / 32; part < PARTS_OF(C); part += WARPS) {
        float sum[WIDTH], place[WIDTH];
        unpack(sum, read_part(token, part, C), real());
        unpack(place, read_part(position, part, C), real());
#pragma unroll
        for (int i = 0; i < WIDTH; i++) sum[i] += place[i];  // (3.1)
        write_part(x + (size_t)blockIdx.x * C, part, C, sum);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
gather_rows(
    const real* __restrict__ x,    // (N, C)
    const int* __restrict__ rows,  // (R,)
    real* __restrict__ out,        // (R, C)
    int C
) {
    const real* row = x + (size_t)rows[blockIdx.x] * C;
    for (int part = threadIdx.x / 32; part < PARTS_OF(C); part += WARPS) {
        float copy[WIDTH];
        unpack(copy, read_part(row, part, C), real());
        write_part(out + (size_t)blockIdx.x * C, part, C, copy);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
embedding_backward(
    const real* __restrict__ dx,    // (N, C)
    const int* __restrict__ index,  // (N,)
    const int* __restrict__ order,  // (N,)
    const int* __restrict__ runs,   // (S,)
    float* __restrict__ dtable,     // (V, C)
    int N,
    int C
) {
    const int first = runs[blockIdx.x], last = runs[blockIdx.x + 1];
    if (first >= N) return;
    const int v = index[order[first]];
    for (int c = threadIdx.x * 4; c < C; c += THREADS * 4) {
        float4 sum = load4(dtable + (size_t)v * C + c);
        add_rows(sum, dx + c, order + first, last - first, C);  // (3.4)
        store4(dtable + (size_t)v * C + c, sum);                // (3.2) (3.3)
    }
}
