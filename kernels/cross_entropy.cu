// Cross-entropy: the loss of a chunk of logits, and its gradient in their place.
//
//     λₙ   = ln Σᵥ exp(ℓₙᵥ)                                       (9.2)
//     nllₙ = λₙ − ℓₙₜ                                             (9.3)
//     pₙᵥ  = exp(ℓₙᵥ − λₙ)                                        (9.5)
//     dℓₙᵥ = wₙ (pₙᵥ − δᵥₜ)                                       (9.7)
//
// One block of 512 threads per triple.  The first loop over the row computes λ, the second one
// overwrites the logits by the gradient.  In the first each thread keeps its largest logit so far,
// m, and Σ exp(ℓ − m), as attention does, and merges two such pairs:
//     m′ = max(m, maxⱼ sᵢⱼ)                                       (8.5)
//     α  = exp(m − m′)                                            (8.6)
//     eᵢⱼ = exp(sᵢⱼ − m′)                                         (8.7)
//     ℓ′ = α ℓ + Σⱼ eᵢⱼ                                           (8.8)
// so the row is read once for λ, not twice.
//
// cross_entropy_staged   16-bit rows that fit into shared memory, which 50,257 logits do on most
//                        GPUs, on H100 twice.  The row comes in four lots, by copies that do not
//                        wait (copy_async.cuh): a lot is summed up while the next ones are on their
//                        way.  The second loop reads shared memory: memory is read once.  A thread
//                        looks only at what it has copied itself, so the lots need no barrier.
// cross_entropy          for all other rows: reads memory twice.
//
// A row of logits may be padded from V to W numbers, so that rows begin at aligned addresses and
// matrix products with them are faster.  Of the padding no number counts, and its gradient is
// exactly 0.  Where W is a multiple of WIDTH, an access moves 16 bytes; else (-DODD) one number.
//
// Bytes, with S bytes a number: staged reads the logits once and writes them once, 2·S·V a triple,
// the least; the other one reads them twice, 3·S·V.  Without the gradient, S·V.
// [sectors] Rows of an odd V begin anywhere in a sector.  A warp's 32 numbers of 16 bits are then
// in three sectors, not in two; the next warp needs one of them again and gets it from the L1
// cache.
// Tile: an exponential a number and loop takes about two thirds of the time of its bytes, so 512
// threads and two blocks a multiprocessor, one of which copies while the other computes.
// Shared memory: S·W bytes of the row, and two numbers a warp.
#include "dtype.cuh"
#include "reduce.cuh"
#include "fast.cuh"
#include "copy_async.cuh"
#define THREADS 512
#define WARPS (THREADS / 32)
#define LOTS 4
#ifdef ODD
#define STEP 1  // numbers in an access
#else
#define STEP WIDTH
#endif

// Access k of a row.
__device__ __forceinline__ void load_step(float (&x)[STEP], const real* row, int k) {
#ifdef ODD
    x[0] = to_float(row[k]);  // [sectors]
#else
    load16(x, row + STEP * k);
#endif
}

__device__ __forceinline__ void store_step(real* row, int k, const float (&x)[STEP]) {
#ifdef ODD
    store(row + k, x[0]);
#else
    store16(row + STEP * k, x);
#endif
}

// exp(x − m).  In 16 bits a product and the difference are one instruction, and exact enough.
__device__ __forceinline__ float exp_below(float x, float m) {
    return power_of_2(sizeof(real) == 2 ? x * LOG2_E - m * LOG2_E : (x - m) * LOG2_E);
}

// The largest logit so far, m, and Σ exp(ℓ − m).
struct Sum {
    float m, total;

    __device__ __forceinline__ void raise(float most) {
        if (most > m) {
            total *= exp_below(m, most);  // (8.6)
            m = most;                     // (8.5)
        }
    }

    // The first `count` numbers of an access, none of them larger than m.
    __device__ __forceinline__ void add(const float (&x)[STEP], int count) {
        const float base = m == MINUS_INFINITY ? 0.f : m;  // as in a row that begins with −∞
#pragma unroll
        for (int i = 0; i < STEP; i++)
            if (i < count) total += exp_below(x[i], base);  // (8.7) (8.8)
    }
};

__device__ __forceinline__ float largest(const float (&x)[STEP], int count) {
    float most = MINUS_INFINITY;
#pragma unroll
    for (int i = 0; i < STEP; i++)
        if (i < count) most = fmaxf(most, x[i]);
    return most;
}

// The sum of what all threads have, returned to each.
__device__ __forceinline__ Sum block_total(Sum own, float (&maxima)[WARPS], float (&sums)[WARPS]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    own.raise(warp_max<32>(own.m));
    own.total = warp_sum<32>(own.total);
    if (lane == 0) {
        maxima[warp] = own.m;
        sums[warp] = own.total;
    }
    __syncthreads();
    Sum all = {lane < WARPS ? maxima[lane] : MINUS_INFINITY, lane < WARPS ? sums[lane] : 0.f};
    all.raise(warp_max<32>(all.m));
    all.total = warp_sum<32>(all.total);
    return all;
}

// Add accesses first, first + THREADS, ... before `stop`, two at a time.
__device__ __forceinline__ void add_run(Sum& sum, const real* row, int first, int stop) {
    for (int k = first; k < stop; k += 2 * THREADS) {
        const bool second = k + THREADS < stop;
        float x[STEP], y[STEP];
        load_step(x, row, k);
        load_step(y, row, second ? k + THREADS : k);
        sum.raise(fmaxf(largest(x, STEP), largest(y, STEP)));
        sum.add(x, STEP);
        sum.add(y, second ? STEP : 0);
    }
}

// Add the access in which the logits end, if it is not whole.
__device__ __forceinline__ void add_end(Sum& sum, const real* row, int V) {
    if (V % STEP == 0 || threadIdx.x != V / STEP % THREADS) return;
    float x[STEP];
    load_step(x, row, V / STEP);
    sum.raise(largest(x, V % STEP));
    sum.add(x, V % STEP);
}

// The row's λ is known, and the logits at `seen`: write the gradient over the row.
__device__ __forceinline__ void write_gradient(real* row, const real* seen, float lse, float w,
                                               int target, int V, int W) {
    const int counted = (V + STEP - 1) / STEP, rest = V % STEP;
#pragma unroll 2
    for (int k = threadIdx.x; k < W / STEP; k += THREADS) {
        float x[STEP] = {};
        if (k < counted) {
            const bool has_target = k == target / STEP, is_end = k == V / STEP;
            load_step(x, seen, k);
#pragma unroll
            for (int i = 0; i < STEP; i++) {
                x[i] = w * exp_below(x[i], lse);                         // (9.5)
                if (has_target) x[i] -= i == target % STEP ? w : 0.f;  // (9.7)
                if (is_end) x[i] = i < rest ? x[i] : 0.f;
            }
        }
        store_step(row, k, x);
    }
}

// If `gradient` is 0 the logits are only read.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
cross_entropy(
    real* __restrict__ logits,          // (M, W)
    const int* __restrict__ targets,    // (M,)
    const float* __restrict__ weights,  // (M,)
    float* __restrict__ nll,            // (M,)
    int V,
    int W,
    int gradient
) {
    __shared__ float maxima[WARPS], sums[WARPS];
    real* row = logits + (size_t)blockIdx.x * W;
    const int target = targets[blockIdx.x], whole = V / STEP;
    Sum sum = {MINUS_INFINITY, 0.f};
    add_run(sum, row, threadIdx.x, whole);
    add_end(sum, row, V);
    sum = block_total(sum, maxima, sums);
    const float lse = sum.m + logf(sum.total);                            // (9.2)
    if (threadIdx.x == 0) nll[blockIdx.x] = lse - to_float(row[target]);  // (9.3)
    if (!gradient) return;
    __syncthreads();  // thread 0 has read the target's logit before another overwrites it
    write_gradient(row, row, lse, weights[blockIdx.x], target, V, W);  // [sectors]
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
cross_entropy_staged(
    real* __restrict__ logits,          // (M, W)
    const int* __restrict__ targets,    // (M,)
    const float* __restrict__ weights,  // (M,)
    float* __restrict__ nll,            // (M,)
    int V,
    int W,
    int gradient
) {
    extern __shared__ __align__(16) unsigned char memory[];
    __shared__ float maxima[WARPS], sums[WARPS];
    real* row = logits + (size_t)blockIdx.x * W;
    const real* seen = (const real*)memory;
    const int target = targets[blockIdx.x], whole = V / STEP, counted = (V + STEP - 1) / STEP;
    const int lot = (counted + LOTS * THREADS - 1) / (LOTS * THREADS) * THREADS;  // accesses
    const shared_address place = address_of(memory);
#pragma unroll
    for (int part = 0; part < LOTS; part++) {
        const int behind = min((part + 1) * lot, counted);
        for (int k = part * lot + threadIdx.x; k < behind; k += THREADS)
            copy_async<16>(place + 16 * k, row + STEP * k, true);
        commit_copies();
    }
    Sum sum = {MINUS_INFINITY, 0.f};
    wait_for_copies<3>();
    add_run(sum, seen, threadIdx.x, min(lot, whole));
    wait_for_copies<2>();
    add_run(sum, seen, lot + threadIdx.x, min(2 * lot, whole));
    wait_for_copies<1>();
    add_run(sum, seen, 2 * lot + threadIdx.x, min(3 * lot, whole));
    wait_for_copies<0>();
    add_run(sum, seen, 3 * lot + threadIdx.x, whole);
    add_end(sum, seen, V);
    sum = block_total(sum, maxima, sums);
    const float lse = sum.m + logf(sum.total);                             // (9.2)
    if (threadIdx.x == 0) nll[blockIdx.x] = lse - to_float(seen[target]);  // (9.3)
    if (gradient) write_gradient(row, seen, lse, weights[blockIdx.x], target, V, W);
}
