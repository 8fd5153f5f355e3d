// RBFRM: the mathematics, and what its four kernels share. The reference:
//
//   s_ij = <p_i, b_j> / (|p_i| |b_j|)          eq. 3, for K = 2 and for K = 4
//   w_ij = exp(scale s_ij) / sum_j exp(...)    eq. 4
//   r_i  = sum_j w_ij b_j                      eq. 5
//   U    = F + R2 + R4                         eq. 6
//
// What makes it fast:
//   - a 4x4 patch is four 2x2 patches, so its products are sums of theirs: <p4_i, b4_j> =
//     sum_q <p2_iq, b2_jq>. K = 4 costs no product of its own.
//   - r_i = mean + 1/R sum_j (R w_ij - 1) b_j, exactly, since the weights sum to 1. The mean is
//     exact (float64, offline), what FP16 rounds is the small rest, and the same raw reference
//     map is the right factor of both products.
//   - |s| <= 1, so exp(scale s) needs no running maximum (scale <= 64 keeps FP32 in range).
//
// rbfrm_dots.cuh: shift (FP32 alone) brings each patch near 1; dots makes the raw products of 2x2
// patches, in `splits` partial sums where the map is small. rbfrm_weights.cuh turns them into
// R w - 1 for both K. rbfrm_blend.cuh makes the sums for both K and writes R2, R4 and U. Products
// and weights live in the workspace between them.
#pragma once

#include "products.cuh"

namespace ndp {

// What all four kernels know. Rows count from the first group of this piece of the work.
struct Rbfrm {
  Map features, reference;
  const void *feature_data, *reference_data;
  void *rep2, *rep4, *fused;
  const float *mean2, *mean4, *key2, *key4, *reference_shift;
  float scale;
  int first_group, groups;  // this piece of the features
  int spans;                // two-group tiles of the reference
  int splits;
  float* dots;              // [splits][128 * ceil(groups / 2)][128 * spans]
  void *weights2, *weights4;  // [64 * groups][128 * spans] and [16 * groups][32 * spans]
  float* feature_shift;     // [patches] where there is one
};

__device__ __forceinline__ int dots_leading(const Rbfrm& p) { return kSpan * p.spans; }
__device__ __forceinline__ int leading4(const Rbfrm& p) { return 2 * kGroup * p.spans; }

}  // namespace ndp
