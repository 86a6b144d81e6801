// AdamW in one pass over the flat arrays: clip, both moments, decay, step.
//
//     g ← (κ / S) g,   κ = min(1, clip / (‖g‖ / S))                (10.2)
//     m ← β₁ m + (1 − β₁) g                                       (10.3)
//     v ← β₂ v + (1 − β₂) g²                                      (10.4)
//     m̂ = m / (1 − β₁ˢ),  v̂ = v / (1 − β₂ˢ)                       (10.5)
//     θ ← θ − η ( m̂ / (√v̂ + ε) + λ θ )                            (10.6)
//
// The kernel reads ‖g‖ from the device, where `global_norm` wrote it, so the host need not wait for
// it.  If ‖g‖ is not finite, nothing changes; the host reads ‖g‖ together with the step's losses
// and reports it.  S is the loss scale of 16-bit training: `unscale` is 1/S, and ‖g‖ is the norm of
// the gradient before it is divided by S.
//
// The host computes in double what is the same for all parameters: `eta_hat` is η / (1 − β₁ˢ),
// `root_correction` is 1 / (1 − β₂ˢ), `keep` is 1 − η λ; here s is the step.  It passes 1 − β₁ and
// 1 − β₂, too, since subtracting in float would lose three digits.
//
// The first `decayed` parameters decay, the others have λ = 0; the boundary need not be a multiple
// of four.  `copy` gets the new θ in the storage type, which is the model's compute dtype.
//
// Launch: 256 threads, each with four neighbours at a time, in a grid-stride loop.
// Bytes: reads θ, g, m, v and writes θ, m, v: 28·P in float, which is the least, and the copy.
// 16 bytes an access: fewer instructions in flight for the same bytes.
#include "dtype.cuh"
#define THREADS 256

struct Step {  // what is the same for all parameters; kappa is κ/S
    float kappa, beta1, one_minus_beta1, beta2, one_minus_beta2;
    float eta_hat, root_correction, eps, keep;
};

__device__ __forceinline__ void update(float& theta, float g, float& m, float& v, const Step& a,
                                       bool decays) {
    g *= a.kappa;                                   // (10.2)
    m = a.beta1 * m + a.one_minus_beta1 * g;        // (10.3)
    v = a.beta2 * v + a.one_minus_beta2 * (g * g);  // (10.4)
    const float change = a.eta_hat * m / (sqrtf(v * a.root_correction) + a.eps);  // (10.5)
    theta = (decays ? theta * a.keep : theta) - change;                           // (10.6)
}

extern "C" __global__ void __launch_bounds__(THREADS)
adamw(
    float* __restrict__ theta,       // (P,)
    const float* __restrict__ g,     // (P,)
    float* __restrict__ m,           // (P,)
    float* __restrict__ v,           // (P,)
    real* __restrict__ copy,         // (P,), optional
    const float* __restrict__ norm,  // (1,)
    long long P,
    long long decayed,
    float clip,
    float unscale,
    float beta1,
    float one_minus_beta1,
    float beta2,
    float one_minus_beta2,
    float eta_hat,
    float root_correction,
    float eps,
    float keep
) {
    const float length = norm[0] * unscale;
    if (!(length <= 3.402823466e38f)) return;  // ∞ or NaN: for every thread alike
    const float kappa = clip > 0.f && length > clip ? clip / length : 1.f;  // (10.2)
    const Step a = {kappa * unscale, beta1, one_minus_beta1, beta2, one_minus_beta2,
                    eta_hat, root_correction, eps, keep};
    const long long first = ((long long)blockIdx.x * THREADS + threadIdx.x) * 4;
    for (long long i = first; i + 4 <= P; i += (long long)gridDim.x * THREADS * 4) {
        float4 t4 = load4(theta + i), m4 = load4(m + i), v4 = load4(v + i);
        const float4 g4 = load4(g + i);
        update(t4.x, g4.x, m4.x, v4.x, a, i < decayed);
        update(t4.y, g4.y, m4.y, v4.y, a, i + 1 < decayed);
        update(t4.z, g4.z, m4.z, v4.z, a, i + 2 < decayed);
        update(t4.w, g4.w, m4.w, v4.w, a, i + 3 < decayed);
        store4(theta + i, t4);
        store4(m + i, m4);
        store4(v + i, v4);
        if (copy) store4(copy + i, t4);
    }
    const long long rest = P / 4 * 4 + threadIdx.x;  // at most three, after the last four
    if (blockIdx.x == 0 && rest < P) {
        update(theta[rest], g[rest], m[rest], v[rest], a, rest < decayed);
        if (copy) store(copy + rest, theta[rest]);
    }
}
