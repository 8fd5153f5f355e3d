// RBFRM, first part: products of 2x2 patches. See rbfrm_shared.cuh.
#pragma once

#include "rbfrm_shared.cuh"

namespace ndp {

// Per 4x4 patch of the features a power of two that brings its largest magnitude into [1, 2), as
// prepared.py does for the reference: sums of squares then stay within FP32.
constexpr int kShiftThreads = 128;

static __global__ __launch_bounds__(kShiftThreads) void rbfrm_shift(Rbfrm p) {
  const int lane = threadIdx.x % kWarpSize;
  const int patch = (blockIdx.x * kShiftThreads + threadIdx.x) / kWarpSize;
  if (patch >= p.features.patches) return;  // a whole warp
  const Map& map = p.features;
  const float* const from =
      static_cast<const float*>(p.feature_data) + Cursor(map, patch).offset;
  float top = 0.0f;
  for (int c = lane; c < map.channels; c += kWarpSize)
#pragma unroll
    for (int pixel = 0; pixel < 16; ++pixel)
      top = fmaxf(top, fabsf(from[pixel / 4 * map.row + pixel % 4 * map.pixel + c * map.channel]));
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
  constexpr int kLanes = kThreads / 2, kLeading = Dots<T>::kLeading;
  constexpr int kTile = kRows * kLeading, kPair = 2 * kTile;
  const int half_block = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  const int steps = 2 * ((p.features.channels + kSlab - 1) / kSlab);
  const int first = static_cast<int>(blockIdx.z) * steps / p.splits;
  const int last = (static_cast<int>(blockIdx.z) + 1) * steps / p.splits;
  const int l = Tile<T, Layout, 1, kLanes>::patch_of(lane);
  const Cursor feature(p.features,
                       (p.first_group + 2 * static_cast<int>(blockIdx.y) + half_block) * kGroup + l);
  const Cursor reference(p.reference,
                         (2 * static_cast<int>(blockIdx.x) + half_block) * kGroup + l);
  float feature_shift = 1.0f, reference_shift = 1.0f;
  if constexpr (sizeof(T) == 4) {
    if (feature.inside) feature_shift = p.feature_shift[feature.patch];
    if (reference.inside) reference_shift = p.reference_shift[reference.patch];
  }
  T* const tiles = reinterpret_cast<T*>(shared);
  Dots<T> dots;
  dots.clear();
  pipelined<kDotsStages<T>>(
      first, last,
      [&](int step, int stage) {
        T* const to = tiles + stage * 2 * kPair + half_block * kTile;
        const int channel = step / 2 * kSlab, row = step % 2;
        load_tile<T, Layout, 1, kLanes, kLeading>(to, static_cast<const T*>(p.feature_data),
                                                  p.features, feature, channel, row, lane,
                                                  feature_shift);
        load_tile<T, Layout, 1, kLanes, kLeading>(
            to + kPair, static_cast<const T*>(p.reference_data), p.reference, reference, channel,
            row, lane, reference_shift);
      },
      [&](int stage) {
        const T* const from = tiles + stage * 2 * kPair;
        dots.add(from, from + kPair);
      });
  const int64_t row = (static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y) * kSpan;
  dots.store(p.dots + row * dots_leading(p) + blockIdx.x * kSpan, dots_leading(p));
}

}  // namespace ndp
