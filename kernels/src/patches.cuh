// How maps are cut: patches, groups of patches, slabs of channels.
//
// A group is 16 consecutive 4x4 patches (raster order, image after image) and the 64 2x2 patches
// in them. Within a group a 2x2 patch has row q * 16 + l: l says which 4x4 patch, q which of its
// four 2x2 patches. So rows q * 16 .. q * 16 + 15 of a tile over 2x2 patches are, for each q, a
// tile over 4x4 patches, and one copy of a map in shared memory serves both patch sizes.
//
// A slab is 16 channels of a group's patches. A thread moves runs of elements that lie side by
// side in memory: 16 bytes of channels in NHWC, the two pixels of a patch's row in NCHW. Columns
// of a tile follow that order, which no product minds as long as both factors have the same.
#pragma once

#include "platform.cuh"

namespace ndp {

constexpr int kGroup = 16;                  // 4x4 patches in a group
constexpr int kRows = 4 * kGroup;           // 2x2 patches in a group
constexpr int kSlab = 16;                   // channels in a slab
constexpr int kLanes = 128;                 // threads that move one group

// A map's sizes and strides, in elements.
struct Map {
  int channels, width4, per_image, patches;  // width4 and per_image count 4x4 patches
  int row, pixel, channel;
  int64_t image;
};

inline Map make_map(int layout, int images, int channels, int height, int width) {
  const int per_image = (height / 4) * (width / 4);
  const bool nhwc = layout == NDP_NHWC;
  return Map{channels, width / 4, per_image, per_image * images,
             nhwc ? width * channels : width, nhwc ? channels : 1, nhwc ? 1 : height * width,
             static_cast<int64_t>(channels) * height * width};
}

__host__ __device__ inline int groups_of(int patches) { return (patches + kGroup - 1) / kGroup; }

// Where the upper left pixel of a 4x4 patch lies.
__device__ __forceinline__ int64_t patch_origin(const Map& map, int patch) {
  const int image = patch / map.per_image, rest = patch % map.per_image;
  const int y = rest / map.width4, x = rest % map.width4;
  return image * map.image + 4 * (static_cast<int64_t>(y) * map.row + x * map.pixel);
}

// One run: where it lies in a tile and in the map. `y`, `x` count pixels in the 4x4 patch.
struct At {
  int row, column, patch, y, x, channel;
  int64_t offset;
  bool valid;
};

// The runs of a tile of 64 rows by 16 channels by (2 x PixelRows) pixels.
//   Length   elements of a run
//   kUnits   runs of one row of the tile
template <typename T, int Layout, int PixelRows>
struct Tile {
  static constexpr int kLength = Layout == NDP_NHWC ? 16 / static_cast<int>(sizeof(T)) : 2;
  static constexpr int kColumns = kSlab * 2 * PixelRows;
  static constexpr int kUnits = kColumns / kLength;
  static constexpr int kAcross = 8;  // threads side by side on the runs of one row

  // Calls visit(At) for this thread's share (`lane` of kLanes) of the tile that begins at
  // `channel` and at row `pixel_row` of each 2x2 patch.
  template <typename Visit>
  static __device__ __forceinline__ void each(const Map& map, int group, int channel,
                                              int pixel_row, int lane, Visit visit) {
    constexpr int kWide = kUnits < kAcross ? kUnits : kAcross;
    constexpr bool kNhwc = Layout == NDP_NHWC;
    constexpr int kTall = kLanes / kWide / kGroup;  // 1, or 2 where a row has four runs
    // Neighbouring threads take neighbouring memory: runs of a row in NHWC, patches in NCHW.
    const int l = kNhwc ? lane / kWide % kGroup : lane % kGroup;
    const int first = kNhwc ? lane % kWide : lane / kGroup;
    const int upper = kNhwc ? lane / kWide / kGroup : 0;
    const int patch = group * kGroup + l;
    const bool inside = patch < map.patches;
    const int64_t origin = inside ? patch_origin(map, patch) : 0;
#pragma unroll
    for (int turn = 0; turn < 4 / kTall; ++turn) {
      const int q = upper + turn * kTall;
#pragma unroll
      for (int step = 0; step < kUnits / kWide; ++step) {
        const int unit = first + step * kWide;
        int ky, kx, c;
        if (kNhwc) {
          constexpr int kPerPixel = kSlab / kLength;
          const int pixel = unit / kPerPixel;
          ky = pixel / 2, kx = pixel % 2, c = unit % kPerPixel * kLength;
        } else {
          ky = unit % PixelRows, kx = 0, c = unit / PixelRows;
        }
        const int y = 2 * (q / 2) + pixel_row + ky, x = 2 * (q % 2) + kx;
        const bool valid = inside && channel + c < map.channels;
        const int64_t offset = origin + static_cast<int64_t>(y) * map.row + x * map.pixel +
                               static_cast<int64_t>(channel + c) * map.channel;
        visit(At{q * kGroup + l, unit * kLength, patch, y, x, channel + c, offset, valid});
      }
    }
  }
};

// Puts a tile into shared memory, rows `Leading` elements apart, zeros where there is no map.
// FP16 goes asynchronously. FP32 passes through registers and is multiplied by its 4x4 patch's
// shift on the way, where `shift` is given (a power of two: exact).
template <typename T, int Layout, int PixelRows, int Leading>
__device__ __forceinline__ void load_tile(T* to, const T* from, const Map& map, int group,
                                          int channel, int pixel_row, int lane,
                                          const float* shift) {
  using Shape = Tile<T, Layout, PixelRows>;
  Shape::each(map, group, channel, pixel_row, lane, [&](const At& at) {
    T* const target = to + at.row * Leading + at.column;
    if constexpr (sizeof(T) == 2) {
      copy_async<Shape::kLength * 2>(target, at.valid ? from + at.offset : from, at.valid);
    } else {
      Run<T, Shape::kLength> run{};
      if (at.valid) {
        run = load_run<T, Shape::kLength>(from + at.offset);
        const float factor = shift ? shift[at.patch] : 1.0f;
        for (int i = 0; i < Shape::kLength; ++i) run.at[i] *= factor;
      }
      store_run(target, run);
    }
  });
}

}  // namespace ndp
