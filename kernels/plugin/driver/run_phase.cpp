// Clone, serialise, create again, attach, enqueue: the outputs are those of the kernels called
// directly, bit for bit.
#include "kit.h"

namespace ndp_driver {
namespace {

void same_as_rbfrm_called_directly(int64_t n, DataType type, TensorFormat format) {
  const float scale = 2.5f;
  const Plugin built(make_rbfrm(scale, type == DataType::kHALF));
  const Plugin copy(built.whole->clone());
  const Plugin loaded(reloaded(copy));
  const Plugin plugin(loaded.runtime()->attachToContext(nullptr));
  CHECK(plugin.whole.get() != loaded.whole.get());
  const auto tensors = rbfrm_tensors(n, type, format);
  const auto all = profile(tensors, n == 1 ? 0 : n);
  CHECK(built.build()->configurePlugin(all.data(), 3, all.data() + 3, 3) == 0);
  CHECK(plugin.runtime()->onShapeChange(tensors.data(), 3, tensors.data() + 3, 3) == 0);
  const size_t map = n * kC * kH * kW;
  const Array features(type, map), reference(type, kC * kRefH * kRefW);
  const Array prepared(DataType::kFLOAT, tensors[2].dims.d[0]);
  float* const positive = static_cast<float*>(prepared.data());  // keys and shifts are
  for (int64_t i = 20 * kC; i < tensors[2].dims.d[0]; ++i) positive[i] = 1.0f;
  const Array workspace(built.build()->getWorkspaceSize(all.data(), 3, all.data() + 3, 3));
  std::vector<Array> got, wanted;
  for (int i = 0; i < 3; ++i) {
    got.emplace_back(features.bytes());
    wanted.emplace_back(features.bytes());
  }
  const void* const in[] = {features.data(), reference.data(), prepared.data()};
  void* const out[] = {got[0].data(), got[1].data(), got[2].data()};
  CHECK(plugin.runtime()->enqueue(tensors.data(), tensors.data() + 3, in, out, workspace.data(),
                                  nullptr) == 0);
  NdpRbfrm args{};
  args.dtype = type == DataType::kHALF ? NDP_FP16 : NDP_FP32;
  args.layout = format == TensorFormat::kLINEAR ? NDP_NCHW : NDP_NHWC;
  args.images = static_cast<int32_t>(n), args.channels = kC, args.height = kH, args.width = kW;
  args.ref_height = kRefH, args.ref_width = kRefW;
  args.softmax_scale = scale, args.multiprocessors = 1;
  args.features = features.data(), args.reference = reference.data(), args.prepared = positive;
  args.rep2 = wanted[0].data(), args.rep4 = wanted[1].data(), args.fused = wanted[2].data();
  args.workspace_bytes = ndp_rbfrm_workspace_bytes(&args);
  const Array own(args.workspace_bytes);
  args.workspace = own.data();
  CHECK(ndp_rbfrm(&args, nullptr) == nullptr);
  for (int i = 0; i < 3; ++i) CHECK(got[i].written() && got[i] == wanted[i]);
  CHECK(!(got[0] == got[1]) && !(got[0] == got[2]));
  logger.last.clear();
  CHECK(plugin.runtime()->enqueue(tensors.data(), tensors.data() + 3, in, out, nullptr,
                                  nullptr) != 0);
  CHECK(logger.last.find("rbfrm: workspace") != std::string::npos);
}

void same_as_ffm_select_called_directly(int64_t n, DataType type, TensorFormat format) {
  const Plugin built(make_ffm_select());
  const Plugin loaded(reloaded(built));
  const Plugin plugin(loaded.runtime()->attachToContext(nullptr));
  const auto tensors = ffm_tensors(n, type, format);
  const auto all = profile(tensors, n == 1 ? 0 : n);
  CHECK(built.build()->configurePlugin(all.data(), 4, all.data() + 4, 1) == 0);
  CHECK(built.build()->getWorkspaceSize(all.data(), 4, all.data() + 4, 1) == 0);
  const size_t map = n * kC * kH * kW;
  const Array logits(type, 3 * map), rep4(type, map), rep2(type, map), features(type, map);
  const Array got(features.bytes()), wanted(features.bytes());
  const void* in[] = {logits.data(), rep4.data(), rep2.data(), features.data()};
  void* const out[] = {got.data()};
  CHECK(plugin.runtime()->enqueue(tensors.data(), tensors.data() + 4, in, out, nullptr,
                                  nullptr) == 0);
  NdpFfmSelect args{};
  args.dtype = type == DataType::kHALF ? NDP_FP16 : NDP_FP32;
  args.layout = format == TensorFormat::kLINEAR ? NDP_NCHW : NDP_NHWC;
  args.images = static_cast<int32_t>(n), args.channels = kC, args.height = kH, args.width = kW;
  args.logits = logits.data(), args.rep4 = rep4.data(), args.rep2 = rep2.data();
  args.features = features.data(), args.selected = wanted.data();
  CHECK(ndp_ffm_select(&args, nullptr) == nullptr);
  CHECK(got.written() && got == wanted);
  in[0] = nullptr;
  CHECK(plugin.runtime()->enqueue(tensors.data(), tensors.data() + 4, in, out, nullptr,
                                  nullptr) != 0);
  CHECK(logger.last == "ndp-edge plugin FFMSelect: ffm_select: logits must be a 16-byte aligned "
                       "pointer");
}

}  // namespace

void run_phase() {
  for (const int64_t n : {1, 3}) {
    for (const DataType type : {DataType::kFLOAT, DataType::kHALF}) {
      const TensorFormat nhwc = type == DataType::kHALF ? TensorFormat::kHWC8 : TensorFormat::kHWC;
      for (const TensorFormat format : {TensorFormat::kLINEAR, nhwc}) {
        same_as_rbfrm_called_directly(n, type, format);
        same_as_ffm_select_called_directly(n, type, format);
      }
    }
  }
}

}  // namespace ndp_driver
