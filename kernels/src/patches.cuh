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

// A map's sizes and strides, in elements. All offsets stay below 2^31 (the launchers see to it).
struct Map {
  int channels, width4, per_image, patches;  // width4, per_image and patches count 4x4 patches
  int row, pixel, channel, image;
};

inline Map make_map(int layout, int images, int channels, int height, int width) {
  const int per_image = (height / 4) * (width / 4);
  const bool nhwc = layout == NDP_NHWC;
  return Map{channels, width / 4, per_image, per_image * images,
             nhwc ? width * channels : width, nhwc ? channels : 1, nhwc ? 1 : height * width,
             channels * height * width};
}

__host__ __device__ inline int groups_of(int patches) { return (patches + kGroup - 1) / kGroup; }

// A 4x4 patch on its way through a map, sixteen at a time. Divides once, when it is made.
struct Cursor {
  int patch, x, offset;  // x counts patches in their row; offset is the upper left pixel's
  bool inside;

  __device__ __forceinline__ Cursor(const Map& map, int patch_) : patch(patch_) {
    inside = patch < map.patches;
    const int image = patch / map.per_image, rest = patch % map.per_image;
    const int y = rest / map.width4;
    x = rest % map.width4;
    offset = inside ? image * map.image + 4 * (y * map.row + x * map.pixel) : 0;
  }

  // To the same place in the next group, in a map of one image.
  __device__ __forceinline__ void next_group(const Map& map) {
    patch += kGroup;
    x += kGroup;
    offset += 4 * kGroup * map.pixel;
    for (; x >= map.width4; x -= map.width4) offset += 4 * (map.row - map.width4 * map.pixel);
    inside = patch < map.patches;
  }
};

// One run: where it lies in a tile and in the map. `y`, `x` count pixels in the 4x4 patch.
struct At {
  int row, column, y, x, channel, offset;
  bool valid;
};

// The runs of a tile of 64 rows by 16 channels by (2 x PixelRows) pixels, shared by Lanes threads.
template <typename T, int Layout, int PixelRows, int Lanes>
struct Tile {
  static constexpr bool kNhwc = Layout == NDP_NHWC;
  static constexpr int kLength = kNhwc ? 16 / static_cast<int>(sizeof(T)) : 2;  // of a run
  static constexpr int kUnits = kSlab * 2 * PixelRows / kLength;                // runs in a row
  static constexpr int kMost = kNhwc ? 8 : Lanes / kGroup;
  static constexpr int kWide = kUnits < kMost ? kUnits : kMost;  // threads on the runs of a row
  static constexpr int kTall = Lanes / kWide / kGroup;           // q that are under way at once
  static_assert(kWide * kTall * kGroup == Lanes && kTall <= 4, "a tile that does not divide");

  // Which of the group's 4x4 patches thread `lane` moves. Neighbouring threads take neighbouring
  // memory: runs of a row in NHWC, patches in NCHW.
  static __device__ __forceinline__ int patch_of(int lane) {
    return kNhwc ? lane / kWide % kGroup : lane % kGroup;
  }

  // Calls visit(At) for this thread's share of the tile that begins at `channel` and at row
  // `pixel_row` of each 2x2 patch. `cursor` is at patch_of(lane) in the group.
  template <typename Visit>
  static __device__ __forceinline__ void each(const Map& map, const Cursor& cursor, int channel,
                                              int pixel_row, int lane, Visit visit) {
    const int first = kNhwc ? lane % kWide : lane / kGroup % kWide;
    const int upper = lane / (kWide * kGroup);
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
        const int offset =
            cursor.offset + y * map.row + x * map.pixel + (channel + c) * map.channel;
        const bool valid = cursor.inside && channel + c < map.channels;
        visit(At{q * kGroup + patch_of(lane), unit * kLength, y, x, channel + c, offset, valid});
      }
    }
  }
};

// Puts a tile into shared memory, rows `Leading` elements apart, zeros where there is no map.
// FP16 goes asynchronously. FP32 passes through registers and is multiplied by `factor`, its
// patch's shift (a power of two: exact).
template <typename T, int Layout, int PixelRows, int Lanes, int Leading>
__device__ __forceinline__ void load_tile(T* to, const T* from, const Map& map,
                                          const Cursor& cursor, int channel, int pixel_row,
                                          int lane, float factor) {
  using Shape = Tile<T, Layout, PixelRows, Lanes>;
  Shape::each(map, cursor, channel, pixel_row, lane, [&](const At& at) {
    T* const target = to + at.row * Leading + at.column;
    if constexpr (sizeof(T) == 2) {
      copy_async<Shape::kLength * 2>(target, at.valid ? from + at.offset : from, at.valid);
    } else {
      Run<T, Shape::kLength> run{};
      if (at.valid) {
        run = load_run<T, Shape::kLength>(from + at.offset);
        for (int i = 0; i < Shape::kLength; ++i) run.at[i] *= factor;
      }
      store_run(target, run);
    }
  });
}

}  // namespace ndp
