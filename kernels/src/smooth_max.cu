// The 5x5 median of each map and its maximum. The reference: sort the 25 values around a pixel,
// those outside replaced by the nearest inside, and take the 13th; then the map's largest.
//
// A block makes a tile of 32 x 8 pixels from 36 x 12 in shared memory. The median comes from
// forgetful selection: of any 14 of 25 values neither the least nor the greatest can be the
// 13th, so both are dropped and the next value is taken in, until one is left. All in registers:
// the loops unroll to compare-exchanges. Each block leaves its maximum in the workspace, and a
// second kernel takes the maximum of those, so that the result does not depend on timing.
#include <float.h>

#include "launch.cuh"

namespace ndp {
namespace {

constexpr int kTileWidth = 32, kTileHeight = 8, kReach = 2;
constexpr int kPixels = kTileWidth * kTileHeight;  // threads, one a pixel
constexpr int kWideTile = kTileWidth + 2 * kReach, kTallTile = kTileHeight + 2 * kReach;
constexpr int kWarps = kPixels / kWarpSize;

__device__ __forceinline__ bool is_nan(float x) { return x != x; }

// The larger, or NaN where either is (fmaxf would drop it).
__device__ __forceinline__ float larger(float a, float b) {
  return is_nan(a) || a > b ? a : b;
}

__device__ __forceinline__ void order(float& low, float& high) {
  const float a = fminf(low, high), b = fmaxf(low, high);
  low = a, high = b;
}

// Moves the least of the first Count values to the front and the greatest to the back.
template <int Count>
__device__ __forceinline__ void ends(float (&v)[14]) {
#pragma unroll
  for (int i = 0; i < Count / 2; ++i) order(v[i], v[Count - 1 - i]);
#pragma unroll
  for (int i = 1; i <= (Count - 1) / 2; ++i) order(v[0], v[i]);
#pragma unroll
  for (int i = Count / 2; i < Count - 1; ++i) order(v[i], v[Count - 1]);
}

// v[0] and v[Count - 1] are dropped; `next` yields the values not seen yet.
template <int Count, typename Next>
__device__ __forceinline__ float select(float (&v)[14], Next next) {
  ends<Count>(v);
  if constexpr (Count == 3) {
    return v[1];
  } else {
    v[0] = next(25 - Count + 3);
    return select<Count - 1>(v, next);
  }
}

// The median of the 25 values at(0) .. at(24); NaN where one of them is.
template <typename At>
__device__ __forceinline__ float median25(At at) {
  float v[14];
  bool nan = false;
  const auto take = [&](int i) {
    const float x = at(i);
    nan = nan || is_nan(x);
    return x;
  };
#pragma unroll
  for (int i = 0; i < 14; ++i) v[i] = take(i);
  const float median = select<14>(v, take);
  return nan ? __uint_as_float(0x7fc00000u) : median;
}

__device__ __forceinline__ float warp_larger(float x) {
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2)
    x = larger(x, __shfl_xor_sync(0xffffffffu, x, mask));
  return x;
}

// The largest of all threads' values, in thread 0.
__device__ __forceinline__ float block_larger(float x, float* scratch) {
  const int lane = threadIdx.x % kWarpSize;
  x = warp_larger(x);
  if (lane == 0) scratch[threadIdx.x / kWarpSize] = x;
  __syncthreads();
  if (threadIdx.x == 0)
    for (int w = 1; w < kWarps; ++w) x = larger(x, scratch[w]);
  return x;
}

constexpr int kTileFloats = kWideTile * kTallTile;
constexpr int kTileBytes = (kTileFloats + kWarps) * sizeof(float);

// Grid: tiles across, tiles down, maps.
__global__ __launch_bounds__(kPixels) void smooth_tiles(const float* maps, float* smoothed,
                                                        float* peaks, int height, int width) {
  NDP_SHARED_BYTES(shared);
  float* const tile = reinterpret_cast<float*>(shared);
  const int left = blockIdx.x * kTileWidth, top = blockIdx.y * kTileHeight;
  const int64_t map = static_cast<int64_t>(blockIdx.z) * height * width;
  for (int i = threadIdx.x; i < kTileFloats; i += kPixels) {
    int y = top + i / kWideTile - kReach, x = left + i % kWideTile - kReach;
    y = y < 0 ? 0 : (y < height ? y : height - 1);
    x = x < 0 ? 0 : (x < width ? x : width - 1);
    tile[i] = maps[map + static_cast<int64_t>(y) * width + x];
  }
  __syncthreads();
  const int in_y = threadIdx.x / kTileWidth, in_x = threadIdx.x % kTileWidth;
  const float* const corner = tile + in_y * kWideTile + in_x;
  const float median = median25([&](int i) { return corner[i / 5 * kWideTile + i % 5]; });
  const int y = top + in_y, x = left + in_x;
  const bool inside = y < height && x < width;
  if (inside) smoothed[map + static_cast<int64_t>(y) * width + x] = median;
  const float peak = block_larger(inside ? median : -INFINITY, tile + kTileFloats);
  if (threadIdx.x == 0)
    peaks[(static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x] =
        peak;
}

// Grid: maps.
__global__ __launch_bounds__(kPixels) void smooth_peak(const float* peaks, float* out, int tiles) {
  NDP_SHARED_BYTES(shared);
  float peak = -INFINITY;
  for (int i = threadIdx.x; i < tiles; i += kPixels)
    peak = larger(peak, peaks[static_cast<int64_t>(blockIdx.x) * tiles + i]);
  peak = block_larger(peak, reinterpret_cast<float*>(shared));
  if (threadIdx.x == 0) out[blockIdx.x] = peak;
}

const char* wrong_number(const NdpSmoothMax& a) {
  const auto side = [](int value) { return value >= 1 && value <= 1 << 15; };
  if (a.images < 1 || a.images > 1 << 15) return "smooth_max: images must be 1 to 32768";
  if (!side(a.height)) return "smooth_max: height must be 1 to 32768";
  if (!side(a.width)) return "smooth_max: width must be 1 to 32768";
  return nullptr;
}

dim3 tiles_of(const NdpSmoothMax& a) {
  return dim3((a.width + kTileWidth - 1) / kTileWidth, (a.height + kTileHeight - 1) / kTileHeight,
              a.images);
}

const char* wrong_pointer(const NdpSmoothMax& a) {
  if (!aligned(a.maps, 16)) return "smooth_max: maps must be a 16-byte aligned pointer";
  if (!aligned(a.smoothed, 16)) return "smooth_max: smoothed must be a 16-byte aligned pointer";
  if (!aligned(a.peaks, 16)) return "smooth_max: peaks must be a 16-byte aligned pointer";
  if (!aligned(a.workspace, 256))
    return "smooth_max: workspace must be a 256-byte aligned pointer";
  if (a.workspace_bytes < ndp_smooth_max_workspace_bytes(&a))
    return "smooth_max: workspace_bytes must be at least what ndp_smooth_max_workspace_bytes says";
  const uint64_t bytes = uint64_t{4} * a.images * a.height * a.width;
  const Span spans[] = {{a.smoothed, bytes},
                        {a.peaks, uint64_t{4} * a.images},
                        {a.workspace, a.workspace_bytes},
                        {a.maps, bytes}};
  if (outputs_overlap(spans, 3))
    return "smooth_max: smoothed, peaks and workspace must overlap nothing else";
  return nullptr;
}

}  // namespace
}  // namespace ndp

extern "C" uint64_t ndp_smooth_max_workspace_bytes(const NdpSmoothMax* args) {
  if (!args || ndp::wrong_number(*args)) return 0;
  const dim3 tiles = ndp::tiles_of(*args);
  return uint64_t{4} * tiles.x * tiles.y * tiles.z;
}

extern "C" const char* ndp_smooth_max(const NdpSmoothMax* args, void* stream) {
  if (!args) return "smooth_max: args must not be null";
  if (const char* error = ndp::wrong_number(*args)) return error;
  if (const char* error = ndp::wrong_pointer(*args)) return error;
  const dim3 tiles = ndp::tiles_of(*args);
  float* const peaks = static_cast<float*>(args->workspace);
  const float* const maps = args->maps;
  float *const smoothed = args->smoothed, *const out = args->peaks;
  const int height = args->height, width = args->width, per_map = tiles.x * tiles.y;
  NDP_LAUNCH(ndp::smooth_tiles, tiles, dim3(ndp::kPixels), ndp::kTileBytes, stream, maps, smoothed,
             peaks, height, width);
  if (const char* error = ndp::launch_error()) return error;
  NDP_LAUNCH(ndp::smooth_peak, dim3(args->images), dim3(ndp::kPixels), ndp::kWarps * sizeof(float),
             stream, peaks, out, per_map);
  return ndp::launch_error();
}
