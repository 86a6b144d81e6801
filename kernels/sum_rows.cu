// Sums of rows: every row of the result is the sum of those rows of x that name it.
//
//     out[v] = Σ_{n : index[n] = v} rows[n]                       (3.4)
//
// `order` is a stable sort of the rows by index, and the rows of v are those at places starts[v] to
// starts[v + 1] − 1 of it.  So each row of the result has one writer: no atomics, and the rows are
// added in their order, the same bits each time.  A row that nothing names becomes 0.
//
// Launch: one block of 128 threads for each row of the result, each thread with four neighbouring
// features at a time; C must be a multiple of 4.
// Bytes, with S bytes a number: reads x once and writes the result once, the least.
#include "dtype.cuh"
#include "add_rows.cuh"
#define THREADS 128

extern "C" __global__ void __launch_bounds__(THREADS)
sum_rows(
    const real* __restrict__ x,      // (N, C)
    const int* __restrict__ order,   // (N,)
    const int* __restrict__ starts,  // (S,)
    real* __restrict__ out,          // (R, C)
    int C
) {
    const int first = starts[blockIdx.x], last = starts[blockIdx.x + 1];
    for (int c = threadIdx.x * 4; c < C; c += THREADS * 4) {
        float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
        add_rows(sum, x + c, order + first, last - first, C);  // (3.4)
        store4(out + (size_t)blockIdx.x * C + c, sum);
    }
}
