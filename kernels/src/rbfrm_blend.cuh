// RBFRM, third part: weighted sums of reference patches, and U. See rbfrm_shared.cuh.
#pragma once

#include "rbfrm_shared.cuh"

namespace ndp {

template <typename T>
constexpr int kBlendStage =  // elements: values, weights of K = 2, weights of K = 4
    (kRows + kSpan) * Blend<T>::kLeading + 2 * kGroup * Blend<T>::kLeading4;
constexpr int kOutBytes = 2 * kRows * kOutLeading * sizeof(float);

template <typename T>
constexpr int blend_bytes(int stages) {
  const int bytes = stages * kBlendStage<T> * static_cast<int>(sizeof(T));
  return bytes > kOutBytes ? bytes : kOutBytes;
}

// A thread's share of a tile of weights, and where it goes; both move on by constant steps.
template <typename T>
struct WeightTiles {
  static constexpr int kRun = 16 / sizeof(T), kLeading = Blend<T>::kLeading;
  static constexpr int kLeading4 = Blend<T>::kLeading4;
  static constexpr int kAcross2 = kRows / kRun, kDown2 = kThreads / kAcross2;
  static constexpr int kAcross4 = kGroup / kRun, kTasks4 = 2 * kGroup * kAcross4;

  const T *from2, *from4;  // this thread's run in the first group of references
  int leading2, to2, to4, rows;

  // Rows past the last group of features stay zeros: nobody made weights for them.
  __device__ __forceinline__ WeightTiles(const Rbfrm& p, int span) {
    const int row2 = threadIdx.x / kAcross2, run2 = threadIdx.x % kAcross2 * kRun;
    const int row4 = threadIdx.x / kAcross4, run4 = threadIdx.x % kAcross4 * kRun;
    leading2 = dots_leading(p);
    rows = p.groups * kRows - span * kSpan - row2;
    from2 = static_cast<const T*>(p.weights2) +
            (static_cast<int64_t>(span) * kSpan + row2) * leading2 + run2;
    from4 = nullptr;
    if (static_cast<int>(threadIdx.x) < kTasks4 && span * 2 * kGroup + row4 < p.groups * kGroup)
      from4 = static_cast<const T*>(p.weights4) +
              (static_cast<int64_t>(span) * 2 * kGroup + row4) * leading4(p) + run4;
    to2 = row2 * kLeading + run2;
    to4 = row4 * kLeading4 + run4;
  }

  static __device__ __forceinline__ void put(T* to, const T* from, bool valid) {
    if constexpr (sizeof(T) == 2) {
      copy_async<16>(to, from, valid);
    } else {
      store_run(to, valid ? load_run<T, kRun>(from) : Run<T, kRun>{});
    }
  }

  __device__ __forceinline__ void load(T* tile2, T* tile4, int group) const {
    const T* from = from2 + group * kRows;
#pragma unroll
    for (int i = 0; i < kSpan / kDown2; ++i) {
      const bool valid = i * kDown2 < rows;
      put(tile2 + to2 + i * kDown2 * kLeading,
          valid ? from + static_cast<int64_t>(i * kDown2) * leading2 : from2, valid);
    }
    if (static_cast<int>(threadIdx.x) < kTasks4)
      put(tile4 + to4, from4 ? from4 + group * kGroup : from2, from4 != nullptr);
  }
};

// Length sums plus means: mean[i * stride] + tile[i] * factor.
template <int Length>
__device__ __forceinline__ void around_mean(float (&out)[Length], const float* mean, int stride,
                                            const float* tile, float factor) {
#pragma unroll
  for (int i = 0; i < Length; ++i) out[i] = mean[i * stride] + tile[i] * factor;
}

// R2, R4 and U of one group and slab, from its two tiles of sums.
template <typename T, int Layout>
__device__ __forceinline__ void write_group(const Rbfrm& p, int group, int channel,
                                            const float* tile2, const float* tile4) {
  using Shape = Tile<T, Layout, 2, kThreads>;
  constexpr int kLength = Shape::kLength;
  const float per4 = 1.0f / static_cast<float>(p.reference.patches), per2 = 0.25f * per4;
  const int channels = p.features.channels, stride = Layout == NDP_NHWC ? 1 : channels;
  const Cursor cursor(p.features, group * kGroup + Shape::patch_of(threadIdx.x));
  Shape::each(p.features, cursor, channel, 0, threadIdx.x, [&](const At& at) {
    if (!at.valid) return;
    const auto features =
        load_run<T, kLength>(static_cast<const T*>(p.feature_data) + at.offset);
    const int in_tile = at.row * kOutLeading + at.column;
    float r2[kLength], r4[kLength];
    around_mean(r2, p.mean2 + (at.y % 2 * 2 + at.x % 2) * channels + at.channel, stride,
                tile2 + in_tile, per2);
    around_mean(r4, p.mean4 + (at.y * 4 + at.x) * channels + at.channel, stride,
                tile4 + in_tile, per4);
    Run<T, kLength> rep2, rep4, fused;
#pragma unroll
    for (int i = 0; i < kLength; ++i) {
      rep2.at[i] = from_float<T>(r2[i]);
      rep4.at[i] = from_float<T>(r4[i]);
      fused.at[i] = from_float<T>(to_float(features.at[i]) + r2[i] + r4[i]);
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
  const WeightTiles<T> weights(p, span);
  Cursor reference(p.reference, Tile<T, Layout, 2, kThreads>::patch_of(threadIdx.x));
  T* const tiles = reinterpret_cast<T*>(shared);
  Blend<T> blend;
  blend.clear();
  pipelined<Stages>(
      0, groups_of(p.reference.patches),
      [&](int group, int stage) {  // groups come in order: the cursor moves on
        T* const values = tiles + stage * kBlendStage<T>;
        load_tile<T, Layout, 2, kThreads, kLeading>(values,
                                                    static_cast<const T*>(p.reference_data),
                                                    p.reference, reference, channel, 0,
                                                    threadIdx.x, 1.0f);
        reference.next_group(p.reference);
        weights.load(values + kRows * kLeading, values + (kRows + kSpan) * kLeading, group);
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
    write_group<T, Layout>(p, p.first_group + 2 * span + half_block, channel, tile2, tile4);
    __syncthreads();
  }
}

}  // namespace ndp
