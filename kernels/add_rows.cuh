// Adding rows up one after the other, with the next ones on their way.
//
// A sum waits for its number from memory.  So eight rows are loaded before the first is added; the
// order of the additions does not change.
#define AT_ONCE 8

// sum += the rows order[0], order[1], ... of x, four features of each.
__device__ __forceinline__ void add_rows(float4& sum, const real* x, const int* order, int count,
                                         int C) {
    for (int n = 0; n < count; n += AT_ONCE) {
        four<real> row[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            if (n + i < count) row[i] = *(const four<real>*)(x + (size_t)order[n + i] * C);
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            if (n + i >= count) continue;
            sum = make_float4(sum.x + to_float(row[i].x), sum.y + to_float(row[i].y),
                              sum.z + to_float(row[i].z), sum.w + to_float(row[i].w));  // (3.4)
        }
    }
}
