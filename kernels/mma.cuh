// Tensor cores: products of small matrices that a warp holds in its registers.
//
// mma_m16n8k16 multiplies a (16, 16) by b (16, 8), both in 16 bits, and adds the product to
// d (16, 8) in float.  With g = lane / 4 and t = lane % 4, a lane holds rows g and g + 8 of d, and
// of each the columns 2t and 2t + 1.  So the d of one product, rounded to 16 bits, is the a of the
// next, lane by lane: two neighbouring d make one a.
//
// ldmatrix_x4 reads four 8 × 8 matrices from shared memory.  Each lane passes the address of one
// row of 8 numbers, and receives the elements that it must hold of a or b; ldmatrix_x4_trans
// transposes the matrices.
//
// Here, in dtype.cuh, fast.cuh and copy_async.cuh a GPU runs its own instructions, and the emulator
// other lines.
#include "copy_async.cuh"

__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], unsigned b0,
                                             unsigned b1, f16) {
#ifdef EMULATED
    const unsigned b[2] = {b0, b1};
    emulated::mma_m16n8k16<emulated::f16_to_float>(d, a, b, __LINE__);
#else
    asm(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], unsigned b0,
                                             unsigned b1, bf16) {
#ifdef EMULATED
    const unsigned b[2] = {b0, b1};
    emulated::mma_m16n8k16<emulated::bf16_to_float>(d, a, b, __LINE__);
#else
    asm(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], shared_address row) {
#ifdef EMULATED
    emulated::ldmatrix_x4<false>(r, row, __LINE__);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
#endif
}

__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&r)[4], shared_address row) {
#ifdef EMULATED
    emulated::ldmatrix_x4<true>(r, row, __LINE__);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
#endif
}

// Two numbers, rounded, in one register: the first in the lower half.
__device__ __forceinline__ unsigned packed(float first, float second) {
    return packed(first, second, real());
}
