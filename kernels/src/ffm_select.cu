// The FFM's selection. The reference, per element of the maps (eq. 7 and 8):
//
//   a = softmax(logit4, logit2, logitF)       out = a4 R4 + a2 R2 + aF F
//
// Bound by memory alone: six reads and one write of each element, 16 bytes a thread and array.
// Both layouts are one case: NHWC has `rows` = N H W rows of `inner` = C elements, NCHW has
// rows = N of inner = C H W; the three logits of an element lie `inner` apart in a row of 3 inner.
#include "launch.cuh"

namespace ndp {
namespace {

constexpr int kSelectThreads = 256;

template <typename T>
__global__ __launch_bounds__(kSelectThreads) void ffm_select(const T* logits, const T* rep4,
                                                             const T* rep2, const T* features,
                                                             T* selected, unsigned runs,
                                                             unsigned runs_per_row) {
  constexpr int kLength = 16 / sizeof(T);
  const unsigned run = blockIdx.x * kSelectThreads + threadIdx.x;
  if (run >= runs) return;
  const unsigned row = run / runs_per_row, in_row = run % runs_per_row;
  const T* const first = logits + (static_cast<int64_t>(row) * 3 * runs_per_row + in_row) * kLength;
  const int64_t inner = static_cast<int64_t>(runs_per_row) * kLength;
  const int64_t at = static_cast<int64_t>(run) * kLength;
  const auto l4 = load_run<T, kLength>(first), l2 = load_run<T, kLength>(first + inner),
             lf = load_run<T, kLength>(first + 2 * inner);
  const auto r4 = load_run<T, kLength>(rep4 + at), r2 = load_run<T, kLength>(rep2 + at),
             f = load_run<T, kLength>(features + at);
  Run<T, kLength> out;
#pragma unroll
  for (int i = 0; i < kLength; ++i) {
    const float x4 = to_float(l4.at[i]), x2 = to_float(l2.at[i]), xf = to_float(lf.at[i]);
    const float top = fmaxf(fmaxf(x4, x2), xf);
    const float e4 = expf(x4 - top), e2 = expf(x2 - top), ef = expf(xf - top);
    // Weights first: they are at most 1, so that no sum leaves the range of its branches.
    const float whole = 1.0f / (e4 + e2 + ef);
    out.at[i] = from_float<T>(e4 * whole * to_float(r4.at[i]) + e2 * whole * to_float(r2.at[i]) +
                              ef * whole * to_float(f.at[i]));
  }
  store_run(selected + at, out);
}

template <typename T>
const char* launch(const NdpFfmSelect& a, void* stream) {
  constexpr int kLength = 16 / sizeof(T);
  const uint64_t map = static_cast<uint64_t>(a.channels) * a.height * a.width;
  const unsigned runs = static_cast<unsigned>(map * a.images / kLength);
  const unsigned inner = a.layout == NDP_NHWC ? a.channels : static_cast<unsigned>(map);
  const unsigned blocks = (runs + kSelectThreads - 1) / kSelectThreads;
  const auto kernel = ffm_select<T>;
  NDP_LAUNCH(kernel, dim3(blocks), dim3(kSelectThreads), 0, stream,
             static_cast<const T*>(a.logits), static_cast<const T*>(a.rep4),
             static_cast<const T*>(a.rep2), static_cast<const T*>(a.features),
             static_cast<T*>(a.selected), runs, inner / kLength);
  return launch_error();
}

const char* wrong(const NdpFfmSelect& a) {
  if (a.dtype != NDP_FP32 && a.dtype != NDP_FP16) return "ffm_select: dtype must be FP32 or FP16";
  if (a.layout != NDP_NCHW && a.layout != NDP_NHWC)
    return "ffm_select: layout must be NCHW or NHWC";
  if (a.images < 1 || a.images > 64) return "ffm_select: images must be 1 to 64";
  if (a.channels < 8 || a.channels % 8)
    return "ffm_select: channels must be a positive multiple of 8";
  const auto side = [](int value) { return value >= 4 && value % 4 == 0 && value <= 1 << 15; };
  if (!side(a.height)) return "ffm_select: height must be a multiple of 4, 4 to 32768";
  if (!side(a.width)) return "ffm_select: width must be a multiple of 4, 4 to 32768";
  const uint64_t pixels = static_cast<uint64_t>(a.height) * a.width;
  if (pixels * a.channels * a.images >= 1ull << 31)
    return "ffm_select: channels x height x width x images must stay below 2^31";
  if (!aligned(a.logits, 16)) return "ffm_select: logits must be a 16-byte aligned pointer";
  if (!aligned(a.rep4, 16)) return "ffm_select: rep4 must be a 16-byte aligned pointer";
  if (!aligned(a.rep2, 16)) return "ffm_select: rep2 must be a 16-byte aligned pointer";
  if (!aligned(a.features, 16)) return "ffm_select: features must be a 16-byte aligned pointer";
  if (!aligned(a.selected, 16)) return "ffm_select: selected must be a 16-byte aligned pointer";
  const uint64_t bytes = pixels * a.channels * a.images * (a.dtype == NDP_FP16 ? 2 : 4);
  const Span spans[] = {{a.selected, bytes}, {a.logits, 3 * bytes}, {a.rep4, bytes},
                        {a.rep2, bytes},     {a.features, bytes}};
  if (outputs_overlap(spans, 1)) return "ffm_select: selected must overlap nothing else";
  return nullptr;
}

}  // namespace
}  // namespace ndp

extern "C" const char* ndp_ffm_select(const NdpFfmSelect* args, void* stream) {
  if (!args) return "ffm_select: args must not be null";
  if (const char* error = ndp::wrong(*args)) return error;
  return args->dtype == NDP_FP16 ? ndp::launch<half>(*args, stream)
                                 : ndp::launch<float>(*args, stream);
}
