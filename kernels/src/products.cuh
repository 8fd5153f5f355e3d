// The two matrix products of RBFRM on tiles in shared memory: FP16 on tensor cores with FP32
// sums (WMMA), FP32 on plain arithmetic. 256 threads, 8 warps. Accumulators stay in registers.
#pragma once

#include "patches.cuh"

namespace ndp {

constexpr int kThreads = 256;
constexpr int kSpan = 2 * kRows;  // rows of a tile: two groups

// Leading dimensions in elements. Padded by 16 bytes: rows of 16 bytes that are read together
// then lie in different banks, and 16 rows are a multiple of the 32 bytes that WMMA wants.
template <typename T>
constexpr int padded(int columns) {
  return columns + 16 / static_cast<int>(sizeof(T));
}
constexpr int kWeights4 = kGroup;  // columns of a tile of 4x4 weights: one group of references

template <typename T>
struct Dots;
template <typename T>
struct Blend;

// acc[i][j] += sum over k of a[i][k] b[k][j]: eight rows by Columns columns of one thread.
template <int Depth, int Columns>
__device__ __forceinline__ void outer(float (&acc)[8][Columns], const float* a, int a_row,
                                      const float* b, int b_k, int b_column) {
#pragma unroll 4
  for (int k = 0; k < Depth; ++k) {
    float right[Columns];
#pragma unroll
    for (int j = 0; j < Columns; ++j) right[j] = b[k * b_k + j * b_column];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float left = a[i * a_row + k];
#pragma unroll
      for (int j = 0; j < Columns; ++j) acc[i][j] += left * right[j];
    }
  }
}

// Dots: 128 feature rows by 128 reference rows over 32 columns of both.
constexpr int kDotsColumns = 32;

template <>
struct Dots<half> {
  static constexpr int kLeading = padded<half>(kDotsColumns);
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> acc[4][2];

  __device__ __forceinline__ void clear() {
    for (auto& row : acc)
      for (auto& one : row) nvcuda::wmma::fill_fragment(one, 0.0f);
  }

  // Warp w: rows 64 (w / 4) .. + 63, columns 32 (w % 4) .. + 31.
  __device__ __forceinline__ void add(const half* features, const half* reference) {
    namespace wmma = nvcuda::wmma;
    const int warp = threadIdx.x / kWarpSize;
    const half* a_rows = features + warp / 4 * 64 * kLeading;
    const half* b_rows = reference + warp % 4 * 32 * kLeading;
#pragma unroll
    for (int k = 0; k < kDotsColumns; k += 16) {
      wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::col_major> b[2];
      for (int j = 0; j < 2; ++j)
        wmma::load_matrix_sync(b[j], b_rows + j * 16 * kLeading + k, kLeading);
      for (int i = 0; i < 4; ++i) {
        wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> a;
        wmma::load_matrix_sync(a, a_rows + i * 16 * kLeading + k, kLeading);
        for (int j = 0; j < 2; ++j) wmma::mma_sync(acc[i][j], a, b[j], acc[i][j]);
      }
    }
  }

  __device__ __forceinline__ void store(float* to, int leading) const {
    const int warp = threadIdx.x / kWarpSize;
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 2; ++j) {
        float* const corner = to + static_cast<int64_t>(warp / 4 * 64 + i * 16) * leading +
                              warp % 4 * 32 + j * 16;
        nvcuda::wmma::store_matrix_sync(corner, acc[i][j], leading, nvcuda::wmma::mem_row_major);
      }
  }
};

template <>
struct Dots<float> {
  static constexpr int kLeading = padded<float>(kDotsColumns);
  float acc[8][8];

  __device__ __forceinline__ void clear() {
    for (auto& row : acc)
      for (float& one : row) one = 0.0f;
  }

  // Thread t: rows 8 (t / 16) .. + 7, columns t % 16, + 16, ... Each tile is summed by itself
  // and then added: two short sums err less than a long one.
  __device__ __forceinline__ void add(const float* features, const float* reference) {
    const int tall = threadIdx.x / 16, wide = threadIdx.x % 16;
    float part[8][8] = {};
    outer<kDotsColumns>(part, features + tall * 8 * kLeading, kLeading,
                        reference + wide * kLeading, 1, 16 * kLeading);
    for (int i = 0; i < 8; ++i)
      for (int j = 0; j < 8; ++j) acc[i][j] += part[i][j];
  }

  __device__ __forceinline__ void store(float* to, int leading) const {
    const int tall = threadIdx.x / 16, wide = threadIdx.x % 16;
    for (int i = 0; i < 8; ++i)
      for (int j = 0; j < 8; ++j)
        to[static_cast<int64_t>(tall * 8 + i) * leading + wide + 16 * j] = acc[i][j];
  }
};

// Blend: 128 rows of weights by one group of references by 64 columns of values; for K = 2 the
// 64 references in one product, for K = 4 the 16 references once per q (four tiles of columns).
constexpr int kBlendColumns = 4 * kSlab;
constexpr int kOutLeading = kBlendColumns + 4;  // of the float tiles that `store` fills

template <>
struct Blend<half> {
  static constexpr int kLeading = padded<half>(kBlendColumns);
  static constexpr int kLeading4 = padded<half>(kWeights4);
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> acc2[2][2], acc4[4];

  __device__ __forceinline__ void clear() {
    for (auto& row : acc2)
      for (auto& one : row) nvcuda::wmma::fill_fragment(one, 0.0f);
    for (auto& one : acc4) nvcuda::wmma::fill_fragment(one, 0.0f);
  }

  // Warp w: for K = 2 rows 32 (w / 2) .. + 31, columns 32 (w % 2) .. + 31; for K = 4 group
  // w / 4 and q = w % 4.
  __device__ __forceinline__ void add(const half* weights2, const half* weights4,
                                      const half* values) {
    namespace wmma = nvcuda::wmma;
    using A = wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major>;
    using B = wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::row_major>;
    const int warp = threadIdx.x / kWarpSize;
    const half* a_rows = weights2 + warp / 2 * 32 * kLeading;
    const half* b_columns = values + warp % 2 * 32;
#pragma unroll
    for (int k = 0; k < kRows; k += 16) {
      B b[2];
      for (int j = 0; j < 2; ++j)
        wmma::load_matrix_sync(b[j], b_columns + k * kLeading + j * 16, kLeading);
      for (int i = 0; i < 2; ++i) {
        A a;
        wmma::load_matrix_sync(a, a_rows + i * 16 * kLeading + k, kLeading);
        for (int j = 0; j < 2; ++j) wmma::mma_sync(acc2[i][j], a, b[j], acc2[i][j]);
      }
    }
    A a;
    wmma::load_matrix_sync(a, weights4 + warp / 4 * kGroup * kLeading4, kLeading4);
    for (int j = 0; j < 4; ++j) {
      B b;
      wmma::load_matrix_sync(b, values + warp % 4 * kGroup * kLeading + j * 16, kLeading);
      wmma::mma_sync(acc4[j], a, b, acc4[j]);
    }
  }

  // Both tiles of one group, 64 rows (q * 16 + l) by 64 columns each.
  __device__ __forceinline__ void store(int group, float* to2, float* to4) const {
    const int warp = threadIdx.x / kWarpSize;
    if (warp / 4 != group) return;
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 2; ++j) {
        float* const corner = to2 + (warp / 2 % 2 * 32 + i * 16) * kOutLeading + warp % 2 * 32 +
                              j * 16;
        nvcuda::wmma::store_matrix_sync(corner, acc2[i][j], kOutLeading,
                                        nvcuda::wmma::mem_row_major);
      }
    for (int j = 0; j < 4; ++j)
      nvcuda::wmma::store_matrix_sync(to4 + warp % 4 * kGroup * kOutLeading + j * 16, acc4[j],
                                      kOutLeading, nvcuda::wmma::mem_row_major);
  }
};

template <>
struct Blend<float> {
  static constexpr int kLeading = padded<float>(kBlendColumns);
  static constexpr int kLeading4 = padded<float>(kWeights4);
  float acc2[8][4], acc4[8][4];

  __device__ __forceinline__ void clear() {
    for (int i = 0; i < 8; ++i)
      for (int j = 0; j < 4; ++j) acc2[i][j] = acc4[i][j] = 0.0f;
  }

  // Thread t: for K = 2 rows 8 (t / 16) .. + 7; for K = 4 group t / 128, q = t / 32 % 4 and
  // half of its rows; columns 4 (t % 16) .. + 3 in both.
  __device__ __forceinline__ void add(const float* weights2, const float* weights4,
                                      const float* values) {
    const int tall = threadIdx.x / 16, wide = threadIdx.x % 16;
    const int group = threadIdx.x / 128, q = threadIdx.x / 32 % 4;
    // As in Dots: short sums of their own first. One after the other, so that one is in registers.
    {
      float part[8][4] = {};
      outer<kRows>(part, weights2 + tall * 8 * kLeading, kLeading, values + wide * 4, kLeading, 1);
      for (int i = 0; i < 8; ++i)
        for (int j = 0; j < 4; ++j) acc2[i][j] += part[i][j];
    }
    float part[8][4] = {};
    outer<kGroup>(part, weights4 + (group * kGroup + tall % 2 * 8) * kLeading4, kLeading4,
                  values + q * kGroup * kLeading + wide * 4, kLeading, 1);
    for (int i = 0; i < 8; ++i)
      for (int j = 0; j < 4; ++j) acc4[i][j] += part[i][j];
  }

  __device__ __forceinline__ void store(int group, float* to2, float* to4) const {
    const int tall = threadIdx.x / 16, wide = threadIdx.x % 16, q = threadIdx.x / 32 % 4;
    if (static_cast<int>(threadIdx.x) / 128 != group) return;
    for (int i = 0; i < 8; ++i)
      for (int j = 0; j < 4; ++j) {
        to2[(tall % 8 * 8 + i) * kOutLeading + wide * 4 + j] = acc2[i][j];
        to4[(q * kGroup + tall % 2 * 8 + i) * kOutLeading + wide * 4 + j] = acc4[i][j];
      }
  }
};

}  // namespace ndp
