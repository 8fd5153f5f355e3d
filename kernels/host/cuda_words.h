// The CUDA words that the kernels use, for a host compiler: the same sources run on a CPU.
//
// A grid's blocks run one after the other on each worker, a block's threads as fibres that switch
// at barriers, or, with NDP_HOST_THREADS, as real threads (for the thread sanitizer). Where a GPU
// would be lucky, this is not:
//   - shared memory begins as NaN and has its exact size on the heap;
//   - an asynchronous copy moves its bytes at the wait for it, not before;
//   - fibres run up and down in turn, so that a missing barrier reads what is not there yet;
//   - a barrier that some threads have left by returning, and a misaligned fragment, abort.
// A WMMA fragment is held whole by lane 0 of its warp; the other lanes hold nothing.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

using half = _Float16;
using cudaStream_t = void*;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace ndp_host {

constexpr int kWarp = 32;

struct Copy {
  void* to;
  const void* from;  // null: zeros
  size_t bytes;
};

// One CUDA thread: where it is, and its asynchronous copies by group.
struct Thread {
  dim3 thread, block, block_dim, grid_dim;
  struct Block* home = nullptr;
  std::vector<std::vector<Copy>> groups;
  std::vector<Copy> open;
};

extern thread_local Thread* now;

[[noreturn]] void fail(const char* what);
void block_barrier();
void warp_barrier();
void* shared_memory(size_t bytes);
float* warp_slot(int lane);  // one float per lane of this thread's warp
void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel);

inline int lane() { return static_cast<int>(now->thread.x) % kWarp; }

}  // namespace ndp_host

#define threadIdx (ndp_host::now->thread)
#define blockIdx (ndp_host::now->block)
#define blockDim (ndp_host::now->block_dim)
#define gridDim (ndp_host::now->grid_dim)

inline void __syncthreads() { ndp_host::block_barrier(); }
inline void __syncwarp() { ndp_host::warp_barrier(); }

inline float __shfl_xor_sync(unsigned, float value, int mask) {
  const int lane = ndp_host::lane();
  *ndp_host::warp_slot(lane) = value;
  ndp_host::warp_barrier();
  const float other = *ndp_host::warp_slot(lane ^ mask);
  ndp_host::warp_barrier();
  return other;
}

inline float __expf(float x) { return std::exp(x); }
inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline void __pipeline_memcpy_async(void* to, const void* from, size_t bytes, size_t zeros = 0) {
  if (reinterpret_cast<uintptr_t>(to) % bytes) ndp_host::fail("asynchronous copy: misaligned");
  if (zeros == 0 && reinterpret_cast<uintptr_t>(from) % bytes)
    ndp_host::fail("asynchronous copy: misaligned source");
  ndp_host::now->open.push_back({to, zeros ? nullptr : from, bytes});
}
inline void __pipeline_commit() {
  ndp_host::now->groups.push_back(std::move(ndp_host::now->open));
  ndp_host::now->open.clear();
}
inline void __pipeline_wait_prior(size_t keep) {
  auto& groups = ndp_host::now->groups;
  if (groups.size() <= keep) return;
  const auto last = groups.end() - static_cast<std::ptrdiff_t>(keep);
  for (auto group = groups.begin(); group != last; ++group)
    for (const ndp_host::Copy& copy : *group) {
      if (copy.from) std::memcpy(copy.to, copy.from, copy.bytes);
      else std::memset(copy.to, 0, copy.bytes);
    }
  groups.erase(groups.begin(), last);
}

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major };

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment {
  static_assert(M == 16 && N == 16 && K == 16);
  float x[256];  // row by row, in lane 0 alone
};

inline void check(const void* pointer, unsigned leading, size_t element) {
  if (reinterpret_cast<uintptr_t>(pointer) % 32) ndp_host::fail("fragment: not 32-byte aligned");
  if (leading * element % 16) ndp_host::fail("fragment: leading dimension not 16 bytes");
}

template <class Use, class Layout>
void load_matrix_sync(fragment<Use, 16, 16, 16, half, Layout>& to, const half* from,
                      unsigned leading) {
  check(from, leading, sizeof(half));
  if (ndp_host::lane() != 0) return;
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) {
      const bool columns = std::is_same_v<Layout, col_major>;
      to.x[columns ? j * 16 + i : i * 16 + j] = static_cast<float>(from[i * leading + j]);
    }
}

inline void fill_fragment(fragment<accumulator, 16, 16, 16, float>& to, float value) {
  std::fill_n(to.x, 256, value);
}

template <class A, class B>
void mma_sync(fragment<accumulator, 16, 16, 16, float>& to, const A& a, const B& b,
              const fragment<accumulator, 16, 16, 16, float>& add) {
  if (ndp_host::lane() != 0) return;
  if (&to != &add) std::copy_n(add.x, 256, to.x);
  for (int i = 0; i < 16; ++i)
    for (int k = 0; k < 16; ++k)
      for (int j = 0; j < 16; ++j) to.x[i * 16 + j] += a.x[i * 16 + k] * b.x[k * 16 + j];
}

inline void store_matrix_sync(float* to, const fragment<accumulator, 16, 16, 16, float>& from,
                              unsigned leading, layout_t) {
  check(to, leading, sizeof(float));
  if (ndp_host::lane() != 0) return;
  for (int i = 0; i < 16; ++i) std::copy_n(from.x + i * 16, 16, to + i * leading);
}

}  // namespace nvcuda::wmma
