// What the two kernels of attention's backward pass share, those without tensor cores.
//
// They have scores, their gradients and up to two sums in registers, and four tiles in shared
// memory: so a met tile has 32 rows, 16 where D > 80, and in the scores a number serves in 2.7
// products.
#include "attention_threads.cuh"
#define MET (D <= 80 ? 32 : 16)  // M: rows of a met tile

struct Shared {
    Rows own, own_too;           // dkv: k, v; dq: q, do
    Tile<MET> met, met_too;      // dkv: q, do; dq: k, v
    Weights weights;
    float lse[MET], delta[MET];  // dkv: of the met queries
    int ends[MET];               // dq: of the met keys
    int lengths[B];              // dkv: how many queries see each own key
};
