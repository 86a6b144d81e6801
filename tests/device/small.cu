// Small kernels for tests of the emulator.  A line that ends in a name in brackets can be taken out
// or be exchanged by a test.
#define TILE 16
#define ALL 0xffffffffu

extern "C" __global__ void __launch_bounds__(256)
matmul(const float* A, const float* B, float* C, int M, int N, int K) {
    __shared__ float As[TILE][TILE], Bs[TILE][TILE];
    int row = blockIdx.y * TILE + threadIdx.y, col = blockIdx.x * TILE + threadIdx.x;
    float sum = 0.f;
    // [leave early]
    for (int k0 = 0; k0 < K; k0 += TILE) {
        As[threadIdx.y][threadIdx.x] = row < M && k0 + threadIdx.x < K ? A[row * K + k0 + threadIdx.x] : 0.f;
        Bs[threadIdx.y][threadIdx.x] = col < N && k0 + threadIdx.y < K ? B[(k0 + threadIdx.y) * N + col] : 0.f;
        __syncthreads();  // [first barrier]
        for (int k = 0; k < TILE; k++) sum += As[threadIdx.y][k] * Bs[k][threadIdx.x];
        __syncthreads();  // [second barrier]
    }
    if (row < M && col < N)  // [bounds]
        C[row * N + col] = sum;
}

extern "C" __global__ void reverse(const float* x, float* y, int n) {
    __shared__ float s[64];
    if (threadIdx.x < n) s[threadIdx.x] = x[threadIdx.x];  // [fill]
    __syncthreads();
    y[threadIdx.x] = s[63 - threadIdx.x];
}

extern "C" __global__ void neighbours(const float* x, float* y) {
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x];
    __syncwarp();  // [warp barrier]
    y[threadIdx.x] = s[threadIdx.x ^ 1];
}

// Each half of a warp meets by itself.
extern "C" __global__ void halves(const float* x, float* y) {
    __shared__ float s[32];
    const unsigned half = threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u;
    s[threadIdx.x] = x[threadIdx.x];  // [a half writes]
    __syncwarp(half);
    y[threadIdx.x] = s[threadIdx.x ^ 1];  // [within a half]
}

extern "C" __global__ void total(const float* x, float* sum, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(sum, x[i]);  // [atomic]
}

extern "C" __global__ void shuffled(const float* x, float* y) {
    float v = x[threadIdx.x];
    v += __shfl_xor_sync(ALL, v, 1);  // [shuffle]
    y[threadIdx.x] = v;
}

extern "C" __global__ void collectives(int* out) {
    const int lane = threadIdx.x % 32;
    int* mine = out + 12 * threadIdx.x;
    mine[0] = __shfl_sync(ALL, lane, 5);
    mine[1] = __shfl_sync(ALL, lane, 3, 8);
    mine[2] = __shfl_up_sync(ALL, lane, 4);
    mine[3] = __shfl_down_sync(ALL, lane, 4, 16);
    mine[4] = (int)__ballot_sync(ALL, lane % 3 == 0);
    mine[5] = __any_sync(ALL, lane == 40);
    mine[6] = __all_sync(ALL, lane < 32);
    mine[7] = __syncthreads_count(threadIdx.x % 5 == 0);
    mine[8] = __syncthreads_or(threadIdx.x == 7);
    mine[9] = __syncthreads_and(threadIdx.x != 7);
    mine[10] = __shfl_xor_sync(ALL, lane, 31);
    mine[11] = (int)threadIdx.x;
}

extern "C" __global__ void wide(float* y) {
    float4* p = (float4*)(y);  // [aligned]
    p[0] = make_float4(1.f, 2.f, 3.f, 4.f);
}

extern "C" __global__ void copy(const float* x, float* y, int stride) {
    y[threadIdx.x] = x[threadIdx.x * stride];
}

extern "C" __global__ void quads(const float* x, float* y) {
    ((float4*)y)[threadIdx.x] = ((const float4*)x)[threadIdx.x];
}

extern "C" __global__ void column(float* y, int width) {
    extern __shared__ float s[];
    for (int r = 0; r < 32; r++) s[r * width + threadIdx.x] = 1.f;
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x * width];
}

extern "C" __global__ void convert(const unsigned short* bits, float* y, unsigned short* back, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    y[i] = emulated::f16_to_float(bits[i]);
    back[i] = emulated::float_to_f16(y[i]);
}

// A warp writes four numbers a lane, after its lanes have met.
extern "C" __global__ void fours(float* y) {
    __shared__ float4 s[32];
    const float v = __shfl_xor_sync(ALL, (float)threadIdx.x, 1);
    s[threadIdx.x] = make_float4(v, v, v, v);
    __syncwarp();
    ((float4*)y)[threadIdx.x] = s[threadIdx.x ^ 1];
}

// The sum of rows of 64 numbers, the r-th r times and backwards.  Each is copied while the one
// before it is added; what is beyond n is 0.
extern "C" __global__ void staged(const float* x, float* y, int n, int rows) {
    __shared__ __align__(16) float s[2][64];
    float sum = 0.f;
    for (int row = 0; row <= rows; row++) {
        const int from = 64 * row + 4 * threadIdx.x;
        const bool sends = row < rows && threadIdx.x < 16;  // [sends]
        if (sends) emulated::copy_async(&s[row % 2][4 * threadIdx.x], x + from, 16, from < n, __LINE__);  // [send]
        emulated::copies_committed(__LINE__);  // [commit]
        if (row == 0) continue;
        emulated::copies_wait(1, __LINE__);  // [wait]
        __syncthreads();  // [all have waited]
        sum += row * s[(row - 1) % 2][63 - threadIdx.x];  // [add]
        __syncthreads();  // [all have added]
    }
    y[threadIdx.x] = sum;
}

extern "C" __global__ void in_place(float* x) {
    __shared__ float s[32];
    emulated::copy_async(&s[threadIdx.x], x + threadIdx.x, 4, true, __LINE__);  // [copy in]
    emulated::copies_committed(__LINE__);
    emulated::copies_wait(0, __LINE__);  // [in time]
    __syncwarp();
    x[31 - threadIdx.x] = 1.f;  // [overwrite]
    emulated::copies_wait(0, __LINE__);
    __syncwarp();
    x[threadIdx.x] += s[threadIdx.x];
}
