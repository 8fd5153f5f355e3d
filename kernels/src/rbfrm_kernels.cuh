// RBFRM's four kernels. The reference:
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
// shift (FP32 alone) brings each patch near 1; dots makes raw products of 2x2 patches, in
// `splits` partial sums where the map is small; weights turns them into R w - 1 for both K; blend
// makes the sums for both K and writes R2, R4 and U. Dots and weights of at most 64 MiB live in
// the workspace between them, which is what they take of the L2 cache.
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

// Per 4x4 patch of the features a power of two that brings its largest magnitude into [1, 2), as
// prepared.py does for the reference: sums of squares then stay within FP32.
constexpr int kShiftThreads = 128;

static __global__ __launch_bounds__(kShiftThreads) void rbfrm_shift(Rbfrm p) {
  const int lane = threadIdx.x % kWarpSize;
  const int patch = (blockIdx.x * kShiftThreads + threadIdx.x) / kWarpSize;
  if (patch >= p.features.patches) return;  // a whole warp
  const float* from = static_cast<const float*>(p.feature_data) + patch_origin(p.features, patch);
  float top = 0.0f;
  for (int i = lane; i < 16 * p.features.channels; i += kWarpSize) {
    const int pixel = i / p.features.channels, channel = i % p.features.channels;
    const float x = from[pixel / 4 * p.features.row + pixel % 4 * p.features.pixel +
                         static_cast<int64_t>(channel) * p.features.channel];
    top = fmaxf(top, fabsf(x));
  }
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2)
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, mask));
  const int exponent = static_cast<int>(__float_as_uint(top) >> 23) - 127;
  const int kept = exponent < -126 ? -126 : (exponent > 126 ? 126 : exponent);
  const float shift = __uint_as_float(static_cast<uint32_t>(127 - kept) << 23);  // 2^-kept
  if (lane == 0) p.feature_shift[patch] = top > 0.0f ? shift : 1.0f;
}

// Blocks that a multiprocessor should hold: two of FP16's dots, in 128 registers a thread. FP32
// needs more registers than that, and so does blend, which would spill.
template <typename T>
constexpr int kResident = sizeof(T) == 2 ? 2 : 1;

template <typename T>
constexpr int kDotsStages = sizeof(T) == 2 ? 3 : 1;  // 60 KiB, and 36 KiB
template <typename T>
constexpr int kDotsBytes = kDotsStages<T> * 2 * kSpan * Dots<T>::kLeading * sizeof(T);

// Grid: tiles of the reference, tiles of the features, splits of the channels.
template <typename T, int Layout>
__global__ __launch_bounds__(kThreads, kResident<T>) void rbfrm_dots(Rbfrm p) {
  NDP_SHARED_BYTES(shared);
  constexpr int kLeading = Dots<T>::kLeading, kTile = kRows * kLeading, kPair = 2 * kTile;
  const int half_block = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  const int steps = 2 * ((p.features.channels + kSlab - 1) / kSlab);
  const int first = static_cast<int>(blockIdx.z) * steps / p.splits;
  const int last = (static_cast<int>(blockIdx.z) + 1) * steps / p.splits;
  const float* shift = sizeof(T) == 4 ? p.feature_shift : nullptr;
  const float* reference_shift = sizeof(T) == 4 ? p.reference_shift : nullptr;
  T* const tiles = reinterpret_cast<T*>(shared);
  Dots<T> dots;
  dots.clear();
  pipelined<kDotsStages<T>>(
      first, last,
      [&](int step, int stage) {
        T* const to = tiles + stage * 2 * kPair + half_block * kTile;
        const int channel = step / 2 * kSlab, row = step % 2;
        load_tile<T, Layout, 1, kLeading>(to, static_cast<const T*>(p.feature_data), p.features,
                                          p.first_group + 2 * blockIdx.y + half_block, channel,
                                          row, lane, shift);
        load_tile<T, Layout, 1, kLeading>(to + kPair, static_cast<const T*>(p.reference_data),
                                          p.reference, 2 * blockIdx.x + half_block, channel, row,
                                          lane, reference_shift);
      },
      [&](int stage) {
        const T* const from = tiles + stage * 2 * kPair;
        dots.add(from, from + kPair);
      });
  const int64_t row = (static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y) * kSpan;
  dots.store(p.dots + row * dots_leading(p) + blockIdx.x * kSpan, dots_leading(p));
}

// A 4x4 patch's factors: scale over the norm of each of its 2x2 patches, and of itself.
template <typename T>
__device__ __forceinline__ void inverse_norms(const Rbfrm& p, int patch, float (&inverse)[5],
                                              float* scratch) {
  const float shift = sizeof(T) == 4 ? p.feature_shift[patch] : 1.0f;
  const T* from = static_cast<const T*>(p.feature_data) + patch_origin(p.features, patch);
  float energy[4] = {};
#pragma unroll
  for (int pixel = 0; pixel < 16; ++pixel) {
    const int y = pixel / 4, x = pixel % 4;
    const T* at = from + y * p.features.row + x * p.features.pixel;
    float sum = 0.0f;
    for (int c = threadIdx.x; c < p.features.channels; c += blockDim.x) {
      const float value = to_float(at[static_cast<int64_t>(c) * p.features.channel]) * shift;
      sum += value * value;
    }
    energy[y / 2 * 2 + x / 2] += sum;
  }
  block_sum(energy, scratch);
  const float least = 1e-12f * shift;
  for (int q = 0; q < 4; ++q)
    inverse[q] = p.scale * fminf(1.0f / fmaxf(sqrtf(energy[q]), least), 1e30f);
  const float whole = sqrtf(energy[0] + energy[1] + energy[2] + energy[3]);
  inverse[4] = p.scale * fminf(1.0f / fmaxf(whole, least), 1e30f);
}

template <typename T>
__device__ __forceinline__ float power(float x) {
  return sizeof(T) == 2 ? __expf(x) : expf(x);
}

constexpr int kWeightThreads = 128;
constexpr int kWeightBytes = 2 * 5 * (kWeightThreads / kWarpSize) * sizeof(float);

// Grid: 4x4 patches. The powers replace the products in place, then get their sums.
template <typename T>
__global__ __launch_bounds__(kWeightThreads) void rbfrm_weights(Rbfrm p) {
  NDP_SHARED_BYTES(shared);
  float* const scratch = reinterpret_cast<float*>(shared);
  const int index = blockIdx.x, group = index / kGroup, l = index % kGroup;
  float inverse[5], sums[5] = {};
  inverse_norms<T>(p, p.first_group * kGroup + index, inverse, scratch);

  const int leading = dots_leading(p), spans = (p.groups + 1) / 2;
  const int64_t split = static_cast<int64_t>(spans) * kSpan * leading;
  float* const rows = p.dots + (static_cast<int64_t>(group) * kRows + l) * leading;
  T* const out2 = static_cast<T*>(p.weights2) + (static_cast<int64_t>(group) * kRows + l) * leading;
  T* const out4 = static_cast<T*>(p.weights4) + static_cast<int64_t>(index) * leading4(p);
  float* const powers4 = p.dots + p.splits * split + static_cast<int64_t>(index) * leading4(p);

  for (int j = threadIdx.x; j < p.reference.patches; j += kWeightThreads) {
    const int column = j / kGroup * kRows + j % kGroup;
    float whole = 0.0f;
    for (int q = 0; q < 4; ++q)
      for (int r = 0; r < 4; ++r) {
        float* const at = rows + static_cast<int64_t>(q) * kGroup * leading + column + r * kGroup;
        float dot = 0.0f;
        for (int s = 0; s < p.splits; ++s) dot += at[s * split];
        if (q == r) whole += dot;
        const float e = power<T>(dot * inverse[q] * p.key2[4 * j + r]);
        sums[q] += e;
        *at = e;
      }
    const float e = power<T>(whole * inverse[4] * p.key4[j]);
    sums[4] += e;
    powers4[j] = e;
  }
  block_sum(sums, scratch + 5 * (kWeightThreads / kWarpSize));

  const float count4 = static_cast<float>(p.reference.patches), count2 = 4.0f * count4;
  for (int j = threadIdx.x; j < leading4(p); j += kWeightThreads) {
    const int column = j / kGroup * kRows + j % kGroup;
    const bool real = j < p.reference.patches;  // the rest fills the last tile
    for (int q = 0; q < 4; ++q)
      for (int r = 0; r < 4; ++r) {
        const int64_t at = static_cast<int64_t>(q) * kGroup * leading + column + r * kGroup;
        out2[at] = from_float<T>(real ? rows[at] * (count2 / sums[q]) - 1.0f : 0.0f);
      }
    out4[j] = from_float<T>(real ? powers4[j] * (count4 / sums[4]) - 1.0f : 0.0f);
  }
}

template <typename T>
constexpr int kBlendStage =  // elements: values, weights of K = 2, weights of K = 4
    (kRows + kSpan) * Blend<T>::kLeading + 2 * kGroup * Blend<T>::kLeading4;
constexpr int kOutBytes = 2 * kRows * kOutLeading * sizeof(float);

template <typename T>
constexpr int blend_bytes(int stages) {
  const int bytes = stages * kBlendStage<T> * static_cast<int>(sizeof(T));
  return bytes > kOutBytes ? bytes : kOutBytes;
}

// 128 rows by 64 columns of weights (and 32 by 16) into shared memory, zeros past the last group.
template <typename T>
__device__ __forceinline__ void load_weights(const Rbfrm& p, T* to2, T* to4, int span, int group) {
  constexpr int kRun = 16 / sizeof(T), kLeading = Blend<T>::kLeading;
  constexpr int kLeading4 = Blend<T>::kLeading4;
  const int rows = p.groups * kRows;
  const auto put = [](T* to, const T* from, bool valid) {
    if constexpr (sizeof(T) == 2) {
      copy_async<16>(to, from, valid);
    } else {
      store_run(to, valid ? load_run<T, kRun>(from) : Run<T, kRun>{});
    }
  };
  for (int i = threadIdx.x; i < kSpan * (kRows / kRun); i += kThreads) {
    const int row = i / (kRows / kRun), run = i % (kRows / kRun) * kRun;
    const bool valid = span * kSpan + row < rows;
    const T* from = static_cast<const T*>(p.weights2);
    if (valid) from += (static_cast<int64_t>(span) * kSpan + row) * dots_leading(p) +
                       group * kRows + run;
    put(to2 + row * kLeading + run, from, valid);
  }
  for (int i = threadIdx.x; i < 2 * kGroup * (kGroup / kRun); i += kThreads) {
    const int row = i / (kGroup / kRun), run = i % (kGroup / kRun) * kRun;
    const bool valid = span * 2 * kGroup + row < p.groups * kGroup;
    const T* from = static_cast<const T*>(p.weights4);
    if (valid) from += (static_cast<int64_t>(span) * 2 * kGroup + row) * leading4(p) +
                       group * kGroup + run;
    put(to4 + row * kLeading4 + run, from, valid);
  }
}

// R2, R4 and U of one group and slab, from its two tiles of sums.
template <typename T, int Layout>
__device__ __forceinline__ void write_group(const Rbfrm& p, int group, int channel, int lane,
                                            const float* tile2, const float* tile4) {
  using Shape = Tile<T, Layout, 2>;
  const float per4 = 1.0f / static_cast<float>(p.reference.patches), per2 = 0.25f * per4;
  const int channels = p.features.channels;
  Shape::each(p.features, group, channel, 0, lane, [&](const At& at) {
    if (!at.valid) return;
    const auto features = load_run<T, Shape::kLength>(
        static_cast<const T*>(p.feature_data) + at.offset);
    Run<T, Shape::kLength> rep2, rep4, fused;
#pragma unroll
    for (int i = 0; i < Shape::kLength; ++i) {
      const int x = at.x + (Layout == NDP_NCHW ? i : 0);
      const int c = at.channel + (Layout == NDP_NHWC ? i : 0);
      const int in_tile = at.row * kOutLeading + at.column + i;
      const float r2 = p.mean2[(at.y % 2 * 2 + x % 2) * channels + c] + tile2[in_tile] * per2;
      const float r4 = p.mean4[(at.y * 4 + x) * channels + c] + tile4[in_tile] * per4;
      rep2.at[i] = from_float<T>(r2);
      rep4.at[i] = from_float<T>(r4);
      fused.at[i] = from_float<T>(to_float(features.at[i]) + r2 + r4);
    }
    store_run(static_cast<T*>(p.rep2) + at.offset, rep2);
    store_run(static_cast<T*>(p.rep4) + at.offset, rep4);
    store_run(static_cast<T*>(p.fused) + at.offset, fused);
  });
}

// Grid: slabs of channels, tiles of the features.
template <typename T, int Layout, int Stages>
__global__ __launch_bounds__(kThreads, 1) void rbfrm_blend(Rbfrm p) {
  NDP_SHARED_BYTES(shared);
  constexpr int kLeading = Blend<T>::kLeading;
  const int channel = blockIdx.x * kSlab, span = blockIdx.y;
  T* const tiles = reinterpret_cast<T*>(shared);
  Blend<T> blend;
  blend.clear();
  pipelined<Stages>(
      0, groups_of(p.reference.patches),
      [&](int group, int stage) {
        T* const values = tiles + stage * kBlendStage<T>;
        if (threadIdx.x < kLanes)
          load_tile<T, Layout, 2, kLeading>(values, static_cast<const T*>(p.reference_data),
                                            p.reference, group, channel, 0, threadIdx.x, nullptr);
        load_weights<T>(p, values + kRows * kLeading, values + (kRows + kSpan) * kLeading, span,
                        group);
      },
      [&](int stage) {
        const T* const values = tiles + stage * kBlendStage<T>;
        blend.add(values + kRows * kLeading, values + (kRows + kSpan) * kLeading, values);
      });
  float* const tile2 = reinterpret_cast<float*>(shared);
  float* const tile4 = tile2 + kRows * kOutLeading;
  for (int half_block = 0; half_block < 2; ++half_block) {
    blend.store(half_block, tile2, tile4);
    __syncthreads();
    if (threadIdx.x < kLanes)
      write_group<T, Layout>(p, p.first_group + 2 * span + half_block, channel, threadIdx.x, tile2,
                             tile4);
    __syncthreads();
  }
}

}  // namespace ndp
