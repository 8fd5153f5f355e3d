// FFMSelect(logits [N, 3 C, H, W], R4, R2, features [N, C, H, W]) -> [N, C, H, W].
//
// No attributes, no workspace; FP32 and FP16.
#pragma once

#include "adapter.h"

namespace ndp_plugin {

class FfmSelectPlugin final : public Adapter<FfmSelectPlugin> {
 public:
  static constexpr const char* kName = "FFMSelect";
  static constexpr int32_t kInputs = 4, kOutputs = 1, kMap = 3;

  static const PluginFieldCollection* attributes() noexcept {
    static const PluginFieldCollection none{0, nullptr};
    return &none;
  }

  static IPluginV3* make(const PluginFieldCollection* /*fields*/,
                         TensorRTPhase /*phase*/) noexcept {
    return new (std::nothrow) FfmSelectPlugin();
  }

  int32_t configurePlugin(DynamicPluginTensorDesc const* in, int32_t inputs,
                          DynamicPluginTensorDesc const* /*out*/,
                          int32_t outputs) noexcept override {
    if (!counted(inputs, outputs)) return 1;
    const Dims& map = in[kMap].max;
    for (int32_t i = 0; i < kInputs; ++i) {
      if (!only_batch_varies(in[i])) return told("only the batch may vary between min and max");
      const int64_t channels = i == 0 ? 3 * map.d[1] : map.d[1];
      const Dims& dims = in[i].max;
      if (dims.d[0] != map.d[0] || dims.d[1] != channels || dims.d[2] != map.d[2] ||
          dims.d[3] != map.d[3])
        return told("the logits must be [N, 3C, H, W], the others [N, C, H, W]");
    }
    return 0;
  }

  bool supportsFormatCombination(int32_t at, DynamicPluginTensorDesc const* all, int32_t inputs,
                                 int32_t outputs) noexcept override {
    if (at < 0 || at >= kInputs + kOutputs || !counted(inputs, outputs)) return false;
    return takes(all[at].desc) && (at == 0 || alike(all[at].desc, all[0].desc));
  }

  char const* getTimingCacheID() noexcept override { return ""; }

  int32_t enqueue(PluginTensorDesc const* in, PluginTensorDesc const* /*out*/,
                  void const* const* inputs, void* const* outputs, void* /*workspace*/,
                  cudaStream_t stream) noexcept override {
    NdpFfmSelect args{};
    set_map(&args, in[kMap], in[kMap].dims);
    args.logits = inputs[0];
    args.rep4 = inputs[1];
    args.rep2 = inputs[2];
    args.features = inputs[3];
    args.selected = outputs[0];
    return told(ndp_ffm_select(&args, stream));
  }

  PluginFieldCollection const* getFieldsToSerialize() noexcept override { return &nothing_; }

 private:
  PluginFieldCollection nothing_{};
};

}  // namespace ndp_plugin
