// Launching, and the checks that all launchers share.
#pragma once

#include "platform.cuh"

#ifdef NDP_HOST
#define NDP_LAUNCH(kernel, grid, block, bytes, stream, ...) \
  (static_cast<void>(stream), ndp_host::run(grid, block, bytes, [=] { kernel(__VA_ARGS__); }))
#else
#define NDP_LAUNCH(kernel, grid, block, bytes, stream, ...) \
  kernel<<<grid, block, bytes, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#endif

namespace ndp {

// CUDA's word on the launch just made, or nullptr.
inline const char* launch_error() {
#ifdef NDP_HOST
  return nullptr;
#else
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
#endif
}

// Lets a kernel take more dynamic shared memory than the 48 KB that need no asking.
template <typename Kernel>
inline const char* allow_shared(Kernel* kernel, int bytes) {
#ifdef NDP_HOST
  (void)kernel, (void)bytes;
  return nullptr;
#else
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
#endif
}

// A number about the current device; `on_host` where there is none.
inline int device_number(int attribute, int on_host) {
#ifdef NDP_HOST
  (void)attribute;
  return on_host;
#else
  int device = 0, value = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return on_host;
  const cudaError_t error =
      cudaDeviceGetAttribute(&value, static_cast<cudaDeviceAttr>(attribute), device);
  return error == cudaSuccess ? value : on_host;
#endif
}

inline bool aligned(const void* pointer, uintptr_t bytes) {
  return pointer != nullptr && reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

struct Span {
  const void* begin;
  uint64_t bytes;
};

inline bool overlap(const Span& a, const Span& b) {
  const uintptr_t x = reinterpret_cast<uintptr_t>(a.begin);
  const uintptr_t y = reinterpret_cast<uintptr_t>(b.begin);
  return x < y + b.bytes && y < x + a.bytes;
}

// True when one of the first `outputs` spans meets any other span.
template <int N>
inline bool outputs_overlap(const Span (&spans)[N], int outputs) {
  for (int i = 0; i < outputs; ++i)
    for (int j = i + 1; j < N; ++j)
      if (overlap(spans[i], spans[j])) return true;
  return false;
}

}  // namespace ndp
