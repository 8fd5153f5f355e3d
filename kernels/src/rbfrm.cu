// RBFRM: argument checks, the workspace's plan, and the launches. The mathematics and the kernels
// are in rbfrm_shared.cuh and the three files beside it.
#include "launch.cuh"
#include "rbfrm_blend.cuh"
#include "rbfrm_dots.cuh"
#include "rbfrm_weights.cuh"

namespace ndp {
namespace {

// Bytes of workspace that a piece of the rows may take. Tests make it small to get many pieces.
#ifndef NDP_PIECE_BYTES
#define NDP_PIECE_BYTES (64ull << 20)
#endif
constexpr uint64_t kPiece = NDP_PIECE_BYTES;
constexpr int kSideLimit = 1 << 15;

const char* wrong_size(const NdpRbfrm& a) {
  if (a.dtype != NDP_FP32 && a.dtype != NDP_FP16) return "rbfrm: dtype must be FP32 or FP16";
  if (a.layout != NDP_NCHW && a.layout != NDP_NHWC) return "rbfrm: layout must be NCHW or NHWC";
  if (a.images < 1 || a.images > 64) return "rbfrm: images must be 1 to 64";
  if (a.channels < 8 || a.channels % 8) return "rbfrm: channels must be a positive multiple of 8";
  const auto side = [](int value) { return value >= 4 && value % 4 == 0 && value <= kSideLimit; };
  if (!side(a.height)) return "rbfrm: height must be a multiple of 4, 4 to 32768";
  if (!side(a.width)) return "rbfrm: width must be a multiple of 4, 4 to 32768";
  if (!side(a.ref_height)) return "rbfrm: ref_height must be a multiple of 4, 4 to 32768";
  if (!side(a.ref_width)) return "rbfrm: ref_width must be a multiple of 4, 4 to 32768";
  if (a.multiprocessors < 0) return "rbfrm: multiprocessors must not be negative";
  const uint64_t limit = 1ull << 31, pixels = static_cast<uint64_t>(a.height) * a.width;
  if (pixels * a.channels * a.images >= limit)
    return "rbfrm: channels x height x width x images must stay below 2^31";
  if (static_cast<uint64_t>(a.ref_height) * a.ref_width * a.channels >= limit)
    return "rbfrm: channels x ref_height x ref_width must stay below 2^31";
  return nullptr;
}

uint64_t rounded(uint64_t bytes) { return (bytes + 255) / 256 * 256; }

// How the work is cut: pieces of the features' groups, splits of the channels, and where in the
// workspace the parts of a piece lie. The last piece may be smaller.
struct Plan {
  int groups, piece, spans, splits;
  uint64_t dots, weights2, weights4, shift, bytes;  // offsets; dots is at 0

  Plan(const NdpRbfrm& a) {
    groups = groups_of(a.images * (a.height / 4) * (a.width / 4));
    const int reference_groups = groups_of((a.ref_height / 4) * (a.ref_width / 4));
    spans = (reference_groups + 1) / 2;
    splits = choose_splits(a);
    piece = groups + groups % 2;
    const uint64_t each = bytes_of(a, 2);  // of two groups: one tile of rows
    const uint64_t fitting = kPiece / each < 1 ? 1 : kPiece / each;
    if (static_cast<uint64_t>(piece / 2) > fitting) piece = static_cast<int>(2 * fitting);
    const uint64_t rest = a.dtype == NDP_FP32 ? rounded(uint64_t{4} * groups * kGroup) : 0;
    bytes = bytes_of(a, piece) + rest;
    shift = bytes - rest;
  }

 private:
  // Enough blocks for every multiprocessor, but at least four steps of work for each.
  int choose_splits(const NdpRbfrm& a) const {
    const int steps = 2 * ((a.channels + kSlab - 1) / kSlab);
    const int64_t tiles = static_cast<int64_t>((groups + 1) / 2) * spans;
    int processors = a.multiprocessors;
#ifndef NDP_HOST
    if (!processors) processors = device_number(cudaDevAttrMultiProcessorCount, 1);
#endif
    const int64_t wanted = processors / tiles;
    const int64_t most = steps / 4 < 1 ? 1 : steps / 4;
    return static_cast<int>(wanted < 1 ? 1 : (wanted > most ? most : wanted));
  }

  uint64_t bytes_of(const NdpRbfrm& a, int part) {
    const uint64_t element = a.dtype == NDP_FP16 ? 2 : 4;
    const uint64_t rows = uint64_t{kRows} * part, columns = uint64_t{kSpan} * spans;
    dots = 0;
    weights2 = rounded(rows * columns * 4 * splits + rows / 4 * columns / 4 * 4);
    weights4 = weights2 + rounded(rows * columns * element);
    return weights4 + rounded(rows / 4 * columns / 4 * element);
  }
};

uint64_t elements(int images, int channels, int height, int width) {
  return static_cast<uint64_t>(images) * channels * height * width;
}

const char* wrong_pointer(const NdpRbfrm& a, const Plan& plan) {
  if (!aligned(a.features, 16)) return "rbfrm: features must be a 16-byte aligned pointer";
  if (!aligned(a.reference, 16)) return "rbfrm: reference must be a 16-byte aligned pointer";
  if (!aligned(a.prepared, 16)) return "rbfrm: prepared must be a 16-byte aligned pointer";
  if (!aligned(a.rep2, 16)) return "rbfrm: rep2 must be a 16-byte aligned pointer";
  if (!aligned(a.rep4, 16)) return "rbfrm: rep4 must be a 16-byte aligned pointer";
  if (!aligned(a.fused, 16)) return "rbfrm: fused must be a 16-byte aligned pointer";
  if (!aligned(a.workspace, 256)) return "rbfrm: workspace must be a 256-byte aligned pointer";
  if (a.workspace_bytes < plan.bytes)
    return "rbfrm: workspace_bytes must be at least what ndp_rbfrm_workspace_bytes says";
  const uint64_t element = a.dtype == NDP_FP16 ? 2 : 4;
  const uint64_t map = element * elements(a.images, a.channels, a.height, a.width);
  const uint64_t reference = element * elements(1, a.channels, a.ref_height, a.ref_width);
  const uint64_t prepared =
      4 * ndp_rbfrm_prepared_floats(a.channels, a.ref_height, a.ref_width);
  const Span spans[] = {{a.rep2, map},         {a.rep4, map},
                        {a.fused, map},        {a.workspace, a.workspace_bytes},
                        {a.features, map},     {a.reference, reference},
                        {a.prepared, prepared}};
  if (outputs_overlap(spans, 4))
    return "rbfrm: rep2, rep4, fused and workspace must overlap nothing else";
  return nullptr;
}

Rbfrm make_params(const NdpRbfrm& a, const Plan& plan) {
  Rbfrm p{};
  p.features = make_map(a.layout, a.images, a.channels, a.height, a.width);
  p.reference = make_map(a.layout, 1, a.channels, a.ref_height, a.ref_width);
  p.feature_data = a.features, p.reference_data = a.reference;
  p.rep2 = a.rep2, p.rep4 = a.rep4, p.fused = a.fused;
  p.mean2 = a.prepared;
  p.mean4 = p.mean2 + 4 * a.channels;
  p.key2 = p.mean4 + 16 * a.channels;
  p.key4 = p.key2 + 4 * p.reference.patches;
  p.reference_shift = p.key4 + p.reference.patches;
  p.scale = a.softmax_scale;
  p.spans = plan.spans, p.splits = plan.splits;
  unsigned char* const workspace = static_cast<unsigned char*>(a.workspace);
  p.dots = reinterpret_cast<float*>(workspace + plan.dots);
  p.weights2 = workspace + plan.weights2;
  p.weights4 = workspace + plan.weights4;
  p.feature_shift = a.dtype == NDP_FP32 ? reinterpret_cast<float*>(workspace + plan.shift) : nullptr;
  return p;
}

template <typename T, int Layout, int Stages>
const char* launch_blend(const Rbfrm& p, void* stream) {
  const auto kernel = rbfrm_blend<T, Layout, Stages>;
  if (const char* error = allow_shared(kernel, blend_bytes<T>(Stages))) return error;
  const dim3 grid((p.features.channels + kSlab - 1) / kSlab, (p.groups + 1) / 2);
  NDP_LAUNCH(kernel, grid, dim3(kThreads), blend_bytes<T>(Stages), stream, p);
  return launch_error();
}

template <typename T, int Layout>
const char* launch_piece(const Rbfrm& p, void* stream) {
  const auto dots = rbfrm_dots<T, Layout>;
  if (const char* error = allow_shared(dots, kDotsBytes<T>)) return error;
  const dim3 grid(p.spans, (p.groups + 1) / 2, p.splits);
  NDP_LAUNCH(dots, grid, dim3(kThreads), kDotsBytes<T>, stream, p);
  if (const char* error = launch_error()) return error;
  const int left = p.features.patches - p.first_group * kGroup;
  const dim3 patches(left < p.groups * kGroup ? left : p.groups * kGroup);
  const auto weights = rbfrm_weights<T, Layout>;
  NDP_LAUNCH(weights, patches, dim3(kWeightThreads), kWeightBytes, stream, p);
  if (const char* error = launch_error()) return error;
  if constexpr (sizeof(T) == 2) {
    // Three stages where shared memory has room for them (compute capability 8.0 and later).
#ifdef NDP_HOST
    const int room = blend_bytes<T>(3);
#else
    const int room = device_number(cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
#endif
    if (room >= blend_bytes<T>(3)) return launch_blend<T, Layout, 3>(p, stream);
    return launch_blend<T, Layout, 2>(p, stream);
  } else {
    return launch_blend<T, Layout, 1>(p, stream);
  }
}

template <typename T, int Layout>
const char* launch(Rbfrm p, const Plan& plan, void* stream) {
  if constexpr (sizeof(T) == 4) {
    const unsigned blocks = (p.features.patches * kWarpSize + kShiftThreads - 1) / kShiftThreads;
    NDP_LAUNCH(rbfrm_shift, dim3(blocks), dim3(kShiftThreads), 0, stream, p);
    if (const char* error = launch_error()) return error;
  }
  for (p.first_group = 0; p.first_group < plan.groups; p.first_group += plan.piece) {
    const int left = plan.groups - p.first_group;
    p.groups = left < plan.piece ? left : plan.piece;
    if (const char* error = launch_piece<T, Layout>(p, stream)) return error;
  }
  return nullptr;
}

}  // namespace
}  // namespace ndp

extern "C" int32_t ndp_kernels_abi(void) { return NDP_KERNELS_ABI; }

extern "C" uint64_t ndp_rbfrm_prepared_floats(int32_t channels, int32_t ref_height,
                                              int32_t ref_width) {
  const uint64_t patches = static_cast<uint64_t>(ref_height / 4) * (ref_width / 4);
  return uint64_t{20} * channels + 6 * patches;
}

extern "C" uint64_t ndp_rbfrm_workspace_bytes(const NdpRbfrm* args) {
  if (!args || ndp::wrong_size(*args)) return 0;
  return ndp::Plan(*args).bytes;
}

extern "C" const char* ndp_rbfrm(const NdpRbfrm* args, void* stream) {
  if (!args) return "rbfrm: args must not be null";
  if (const char* error = ndp::wrong_size(*args)) return error;
  if (!(args->softmax_scale > 0.0f && args->softmax_scale <= 64.0f))
    return "rbfrm: softmax_scale must be above 0 and at most 64";
  const ndp::Plan plan(*args);
  if (const char* error = ndp::wrong_pointer(*args, plan)) return error;
  const ndp::Rbfrm p = ndp::make_params(*args, plan);
  const bool nhwc = args->layout == NDP_NHWC;
  if (args->dtype == NDP_FP16)
    return nhwc ? ndp::launch<half, NDP_NHWC>(p, plan, stream)
                : ndp::launch<half, NDP_NCHW>(p, plan, stream);
  return nhwc ? ndp::launch<float, NDP_NHWC>(p, plan, stream)
              : ndp::launch<float, NDP_NCHW>(p, plan, stream);
}
