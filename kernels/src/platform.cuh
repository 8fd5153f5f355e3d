// What differs between nvcc and a host compiler, and small words that both share.
#pragma once

#ifdef NDP_HOST
#include "cuda_words.h"
#define NDP_SHARED_BYTES(name) \
  unsigned char* const name = static_cast<unsigned char*>(ndp_host::shared_memory(0))
#else
#include <cuda_fp16.h>
#include <cuda_pipeline.h>
#include <cuda_runtime.h>
#include <mma.h>
#define NDP_SHARED_BYTES(name) extern __shared__ __align__(128) unsigned char name[]
#endif

#include <stdint.h>

#include "ndp_kernels.h"

namespace ndp {

constexpr int kWarpSize = 32;

__device__ __forceinline__ float to_float(float x) { return x; }
#ifdef NDP_HOST
inline float to_float(half x) { return static_cast<float>(x); }
#else
__device__ __forceinline__ float to_float(half x) { return __half2float(x); }
#endif

template <typename T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
// Saturates: an infinity would be NaN one layer later. NaN itself passes (both tests fail).
template <>
__device__ __forceinline__ half from_float<half>(float x) {
  constexpr float kMost = 65504.0f;
  const float kept = x > kMost ? kMost : (x < -kMost ? -kMost : x);
#ifdef NDP_HOST
  return static_cast<half>(kept);
#else
  return __float2half_rn(kept);
#endif
}

// A run of N elements that is moved as one word of N * sizeof(T) bytes.
template <typename T, int N>
struct alignas(sizeof(T) * N) Run {
  T at[N];
};

template <typename T, int N>
__device__ __forceinline__ Run<T, N> load_run(const T* from) {
  return *reinterpret_cast<const Run<T, N>*>(from);
}
template <typename T, int N>
__device__ __forceinline__ void store_run(T* to, const Run<T, N>& run) {
  *reinterpret_cast<Run<T, N>*>(to) = run;
}

// Asynchronous copy to shared memory of 4, 8 or 16 bytes, or that many zeros.
template <int Bytes>
__device__ __forceinline__ void copy_async(void* to, const void* from, bool valid) {
  __pipeline_memcpy_async(to, from, Bytes, valid ? 0 : Bytes);
}

// Runs `load(step, stage)` ahead of `compute(stage)` for the steps first .. last - 1.
template <int Stages, typename Load, typename Compute>
__device__ __forceinline__ void pipelined(int first, int last, Load load, Compute compute) {
  for (int ahead = 0; ahead < Stages - 1; ++ahead) {
    if (first + ahead < last) load(first + ahead, ahead);
    __pipeline_commit();  // also when empty, so that the count of groups says which have arrived
  }
  for (int step = first; step < last; ++step) {
    const int ahead = step + Stages - 1;
    if (ahead < last) load(ahead, (ahead - first) % Stages);
    __pipeline_commit();
    __pipeline_wait_prior(Stages - 1);
    __syncthreads();  // every thread's copies of this stage are there
    compute((step - first) % Stages);
    __syncthreads();  // nobody reads this stage any more: it may be overwritten
  }
}

// Sums N values over the block's threads; every thread gets the sums. `scratch` holds N floats
// per warp and is not used for anything else.
template <int N>
__device__ __forceinline__ void block_sum(float (&values)[N], float* scratch) {
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  for (int i = 0; i < N; ++i)
    for (int mask = kWarpSize / 2; mask > 0; mask /= 2)
      values[i] += __shfl_xor_sync(0xffffffffu, values[i], mask);
  if (lane == 0)
    for (int i = 0; i < N; ++i) scratch[warp * N + i] = values[i];
  __syncthreads();
  for (int i = 0; i < N; ++i) {
    values[i] = 0.0f;
    for (unsigned w = 0; w < blockDim.x / kWarpSize; ++w) values[i] += scratch[w * N + i];
  }
}

}  // namespace ndp
