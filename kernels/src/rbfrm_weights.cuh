// RBFRM, second part: from products to weights. See rbfrm_shared.cuh.
#pragma once

#include "rbfrm_shared.cuh"

namespace ndp {

constexpr int kWeightThreads = 128;
constexpr int kWeightWarps = kWeightThreads / kWarpSize;
constexpr int kWeightBytes = (5 + 2) * kWeightWarps * sizeof(float);

// Sums of squares of a 4x4 patch's four 2x2 patches, in every thread. Warp y takes pixel row y.
template <typename T, int Layout>
__device__ __forceinline__ void energies(const Map& map, const T* patch, float shift,
                                         float (&energy)[4], float* scratch) {
  const int y = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const T* const row = patch + y * map.row;
  float left = 0.0f, right = 0.0f;
  if constexpr (Layout == NDP_NHWC) {
    // Eight lanes to a pixel, 16 bytes each.
    constexpr int kLength = 16 / sizeof(T);
    const T* const pixel = row + lane / 8 * map.pixel;
    float sum = 0.0f;
#pragma unroll 4
    for (int c = lane % 8 * kLength; c < map.channels; c += 8 * kLength) {
      const auto run = load_run<T, kLength>(pixel + c);
      for (int i = 0; i < kLength; ++i) {
        const float value = to_float(run.at[i]) * shift;
        sum += value * value;
      }
    }
    (lane < kWarpSize / 2 ? left : right) = sum;
  } else {
#pragma unroll 4
    for (int c = lane; c < map.channels; c += kWarpSize) {
      const auto run = load_run<T, 4>(row + c * map.channel);
      float value[4];
      for (int x = 0; x < 4; ++x) value[x] = to_float(run.at[x]) * shift;
      left += value[0] * value[0] + value[1] * value[1];
      right += value[2] * value[2] + value[3] * value[3];
    }
  }
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) {
    left += __shfl_xor_sync(0xffffffffu, left, mask);
    right += __shfl_xor_sync(0xffffffffu, right, mask);
  }
  if (lane == 0) scratch[2 * y] = left, scratch[2 * y + 1] = right;
  __syncthreads();
  for (int q = 0; q < 4; ++q)
    energy[q] = scratch[4 * (q / 2) + q % 2] + scratch[4 * (q / 2) + 2 + q % 2];
}

// A patch's factor on its products: scale over its norm, from its sum of squares. NaN there is
// NaN in the products as well, so that fmaxf may drop it here.
__device__ __forceinline__ float inverse_norm(float energy, float shift, float scale) {
  return scale * fminf(1.0f / fmaxf(sqrtf(energy), 1e-12f * shift), 1e30f);
}

template <typename T>
__device__ __forceinline__ float power(float x) {
  return sizeof(T) == 2 ? __expf(x) : expf(x);
}

// Grid: 4x4 patches. The powers replace the products in place, then get their sums. All of a
// turn's loads stand before its first store: they may then be under way together.
template <typename T, int Layout>
__global__ __launch_bounds__(kWeightThreads) void rbfrm_weights(Rbfrm p) {
  NDP_SHARED_BYTES(shared);
  float* const scratch = reinterpret_cast<float*>(shared);
  const int index = blockIdx.x, patch = p.first_group * kGroup + index;
  const float shift = sizeof(T) == 4 ? p.feature_shift[patch] : 1.0f;
  const T* from = static_cast<const T*>(p.feature_data) + Cursor(p.features, patch).offset;
  float energy[4], inverse[4], sums[5] = {};
  energies<T, Layout>(p.features, from, shift, energy, scratch + 5 * kWeightWarps);
  for (int q = 0; q < 4; ++q) inverse[q] = inverse_norm(energy[q], shift, p.scale);
  const float inverse4 =
      inverse_norm(energy[0] + energy[1] + energy[2] + energy[3], shift, p.scale);

  const int leading = dots_leading(p), reference = p.reference.patches;
  const int64_t split = static_cast<int64_t>((p.groups + 1) / 2) * kSpan * leading;
  const int64_t first_row = static_cast<int64_t>(index / kGroup) * kRows + index % kGroup;
  float* const rows = p.dots + first_row * leading;
  float* const powers4 = p.dots + p.splits * split + static_cast<int64_t>(index) * leading4(p);
  const auto place = [&](int j, int q, int r) {  // of <p2_iq, b2_jr>, from `rows`
    return static_cast<int64_t>(q) * kGroup * leading + j / kGroup * kRows + r * kGroup +
           j % kGroup;
  };

  for (int j = threadIdx.x; j < reference; j += kWeightThreads) {
    float dot[4][4] = {};
#pragma unroll 1
    for (int s = 0; s < p.splits; ++s)
#pragma unroll
      for (int i = 0; i < 16; ++i) dot[i / 4][i % 4] += rows[s * split + place(j, i / 4, i % 4)];
    const float whole = dot[0][0] + dot[1][1] + dot[2][2] + dot[3][3];
    const auto key2 = load_run<float, 4>(p.key2 + 4 * j);
    const float e4 = power<T>(whole * inverse4 * p.key4[j]);
#pragma unroll
    for (int q = 0; q < 4; ++q)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float e = power<T>(dot[q][r] * inverse[q] * key2.at[r]);
        sums[q] += e;
        rows[place(j, q, r)] = e;
      }
    sums[4] += e4;
    powers4[j] = e4;
  }
  block_sum(sums, scratch);

  const float count4 = static_cast<float>(reference), count2 = 4.0f * count4;
  T* const out2 = static_cast<T*>(p.weights2) + first_row * leading;
  T* const out4 = static_cast<T*>(p.weights4) + static_cast<int64_t>(index) * leading4(p);
  for (int j = threadIdx.x; j < leading4(p); j += kWeightThreads) {
    const bool real = j < reference;  // the rest fills the last tile with zeros
    float e[4][4];
#pragma unroll
    for (int i = 0; i < 16; ++i) e[i / 4][i % 4] = rows[place(j, i / 4, i % 4)];
    const float w4 = powers4[j] * (count4 / sums[4]) - 1.0f;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const float w2 = e[i / 4][i % 4] * (count2 / sums[i / 4]) - 1.0f;
      out2[place(j, i / 4, i % 4)] = from_float<T>(real ? w2 : 0.0f);
    }
    out4[j] = from_float<T>(real ? w4 : 0.0f);
  }
}

}  // namespace ndp
