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
// Launch: 128 threads, each with four neighbouring features at a time; C must be a multiple of 4.
// Bytes, with S bytes a number: forward reads two rows and writes one, 3·S·N·C at most (frequent
// rows of the tables stay in cache).  Backward reads dx once, S·N·C, and reads and writes each row
// of the table that occurs, which is the least.  Gathering reads and writes each row once, 2·S·R·C.
#include "dtype.cuh"
#include "add_rows.cuh"
#define THREADS 128

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
    for (int c = threadIdx.x * 4; c < C; c += THREADS * 4) {
        const float4 t = load4(token + c), p = load4(position + c);
        const float4 sum = make_float4(t.x + p.x, t.y + p.y, t.z + p.z, t.w + p.w);  // (3.1)
        store4(x + (size_t)blockIdx.x * C + c, sum);
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
    for (int c = threadIdx.x * 4; c < C; c += THREADS * 4)
        store4(out + (size_t)blockIdx.x * C + c, load4(row + c));
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
