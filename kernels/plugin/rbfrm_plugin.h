// RBFRM(features [N, C, H, W], reference [1, C, h, w], prepared float32 [20 C + 6 R])
//   -> R2, R4, U, each as the features.
//
// Attributes of the ONNX node: softmax_scale (float), and half (int), 1 where `prepared` was made
// of an FP16 reference and 0 where of an FP32 one. The two differ (see ndp_kernels.h), so the
// plugin offers TensorRT that one type: a weakly typed build may not pick the other.
//
// The engine keeps, beside these, the number of multiprocessors that it was built for: the cut of
// the work hangs on it, and with that the workspace which TensorRT sets aside at build time.
#pragma once

#include <cinttypes>
#include <cstdio>

#include "adapter.h"

#ifndef NDP_HOST
#include <cuda_runtime_api.h>
#endif

namespace ndp_plugin {

class RbfrmPlugin final : public Adapter<RbfrmPlugin> {
 public:
  static constexpr const char* kName = "RBFRM";
  static constexpr int32_t kInputs = 3, kOutputs = 3, kMap = 0;

  static const PluginFieldCollection* attributes() noexcept {
    static const PluginField names[] = {{"softmax_scale", nullptr, PluginFieldType::kFLOAT32, 1},
                                        {"half", nullptr, PluginFieldType::kINT32, 1}};
    static const PluginFieldCollection collection{2, names};
    return &collection;
  }

  static IPluginV3* make(const PluginFieldCollection* fields, TensorRTPhase phase) noexcept {
    float scale = 0.0f;
    int32_t half = -1, processors = 0;
    if (!read_field(fields, "softmax_scale", PluginFieldType::kFLOAT32, &scale) ||
        !(scale > 0.0f && scale <= 64.0f))
      return refused("softmax_scale must be one float above 0 and at most 64");
    if (!read_field(fields, "half", PluginFieldType::kINT32, &half) || half < 0 || half > 1)
      return refused("half must be one int32, 0 or 1");
    if (phase == TensorRTPhase::kBUILD) {
      processors = multiprocessors_here();
    } else if (!read_field(fields, "multiprocessors", PluginFieldType::kINT32, &processors) ||
               processors < 1) {
      return refused("the engine's multiprocessors field is missing; build the engine again");
    }
    return new (std::nothrow) RbfrmPlugin(scale, half, processors);
  }

  int32_t configurePlugin(DynamicPluginTensorDesc const* in, int32_t inputs,
                          DynamicPluginTensorDesc const* /*out*/,
                          int32_t outputs) noexcept override {
    if (!counted(inputs, outputs)) return 1;
    if (!only_batch_varies(in[0])) return told("only the batch may vary between min and max");
    const Dims &reference = in[1].max, &prepared = in[2].max;
    if (reference.nbDims != 4 || reference.d[0] != 1 || reference.d[1] != in[0].max.d[1])
      return told("the reference must be [1, C, h, w]");
    const NdpRbfrm args = sizes(in[0].desc, in[0].max, reference);
    if (!ndp_rbfrm_workspace_bytes(&args))
      return told("sizes: C a multiple of 8, sides of 4, batch at most 64, map below 2^31");
    const uint64_t floats =
        ndp_rbfrm_prepared_floats(args.channels, args.ref_height, args.ref_width);
    if (prepared.nbDims != 1 || static_cast<uint64_t>(prepared.d[0]) != floats)
      return told("the prepared vector does not belong to this reference");
    return 0;
  }

  bool supportsFormatCombination(int32_t at, DynamicPluginTensorDesc const* all, int32_t inputs,
                                 int32_t outputs) noexcept override {
    if (at < 0 || at >= kInputs + kOutputs || !counted(inputs, outputs)) return false;
    const PluginTensorDesc& tensor = all[at].desc;
    if (at == 2) return tensor.type == DataType::kFLOAT && tensor.format == TensorFormat::kLINEAR;
    if (!takes(tensor)) return false;
    return at == 0 ? (tensor.type == DataType::kHALF) == (half_ == 1) : alike(tensor, all[0].desc);
  }

  // The most that any batch up to the largest needs: a small one is cut finer, and may need more.
  size_t getWorkspaceSize(DynamicPluginTensorDesc const* in, int32_t inputs,
                          DynamicPluginTensorDesc const* /*out*/,
                          int32_t outputs) const noexcept override {
    if (!counted(inputs, outputs)) return 0;
    NdpRbfrm args = sizes(in[0].desc, in[0].max, in[1].max);
    uint64_t most = 0;
    for (int32_t last = args.images; args.images > 0; --args.images) {
      const uint64_t bytes = ndp_rbfrm_workspace_bytes(&args);
      if (args.images == last && bytes == 0) break;  // configurePlugin has said why
      most = bytes > most ? bytes : most;
    }
    return static_cast<size_t>(most);
  }

  char const* getTimingCacheID() noexcept override { return about_; }
  char const* getMetadataString() noexcept override { return about_; }

  int32_t enqueue(PluginTensorDesc const* in, PluginTensorDesc const* /*out*/,
                  void const* const* inputs, void* const* outputs, void* workspace,
                  cudaStream_t stream) noexcept override {
    NdpRbfrm args = sizes(in[0], in[0].dims, in[1].dims);
    args.softmax_scale = softmax_scale_;
    args.features = inputs[0];
    args.reference = inputs[1];
    args.prepared = static_cast<const float*>(inputs[2]);
    args.rep2 = outputs[0];
    args.rep4 = outputs[1];
    args.fused = outputs[2];
    args.workspace = workspace;
    args.workspace_bytes = ndp_rbfrm_workspace_bytes(&args);
    return told(ndp_rbfrm(&args, stream));
  }

  PluginFieldCollection const* getFieldsToSerialize() noexcept override {
    fields_[0] = {"softmax_scale", &softmax_scale_, PluginFieldType::kFLOAT32, 1};
    fields_[1] = {"half", &half_, PluginFieldType::kINT32, 1};
    fields_[2] = {"multiprocessors", &multiprocessors_, PluginFieldType::kINT32, 1};
    collection_ = {3, fields_};
    return &collection_;
  }

 private:
  RbfrmPlugin(float scale, int32_t half, int32_t processors) noexcept
      : softmax_scale_(scale), half_(half), multiprocessors_(processors) {
    std::snprintf(about_, sizeof(about_), "softmax_scale=%.9g half=%" PRId32 " abi=%d", scale, half,
                  NDP_KERNELS_ABI);
  }

  static IPluginV3* refused(const char* line) noexcept {
    log_error(kName, line);
    return nullptr;
  }

  static int32_t multiprocessors_here() noexcept {
#ifdef NDP_HOST
    return 1;
#else
    int device = 0, count = 0;
    if (cudaGetDevice(&device) != cudaSuccess) return 1;
    const cudaError_t error =
        cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    return error == cudaSuccess && count > 0 ? count : 1;
#endif
  }

  NdpRbfrm sizes(const PluginTensorDesc& features, const Dims& dims,
                 const Dims& reference) const noexcept {
    NdpRbfrm args{};
    set_map(&args, features, dims);
    args.ref_height = side(reference, 2);
    args.ref_width = side(reference, 3);
    args.multiprocessors = multiprocessors_;
    return args;
  }

  float softmax_scale_;
  int32_t half_, multiprocessors_;
  char about_[64] = {};
  PluginField fields_[3];
  PluginFieldCollection collection_{};
};

}  // namespace ndp_plugin
