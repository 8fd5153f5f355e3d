// What both plugins share: the boilerplate of IPluginV3, and how TensorRT's words for a tensor
// map to the kernels'. No mathematics, no allocation and no synchronisation in enqueue, and
// nothing throws: every method that TensorRT calls is noexcept and uses only what cannot throw.
#pragma once

#include <NvInferRuntime.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

#include "../src/ndp_kernels.h"

static_assert(NV_TENSORRT_MAJOR > 10 || (NV_TENSORRT_MAJOR == 10 && NV_TENSORRT_MINOR >= 3),
              "the plugin needs the headers of TensorRT 10.3 or later");

namespace ndp_plugin {

using namespace nvinfer1;

// A line for TensorRT's logger, or for stderr while TensorRT has lent none.
void log_error(const char* who, const char* line) noexcept;

// The memory layouts that the kernels take, in TensorRT's words. kHWC8 pads the channels to a
// multiple of 8, so it is dense NHWC where they are one already; TensorRT has kHWC, which is
// never padded, for FP32 only. int8 is not among them: the kernels have no int8 path.
inline bool takes(const PluginTensorDesc& tensor) noexcept {
  if (tensor.dims.nbDims != 4 || tensor.dims.d[1] < 8 || tensor.dims.d[1] % 8) return false;
  if (tensor.format == TensorFormat::kLINEAR)
    return tensor.type == DataType::kFLOAT || tensor.type == DataType::kHALF;
  if (tensor.format == TensorFormat::kHWC8) return tensor.type == DataType::kHALF;
  if (tensor.format == TensorFormat::kHWC) return tensor.type == DataType::kFLOAT;
  return false;
}

inline bool alike(const PluginTensorDesc& a, const PluginTensorDesc& b) noexcept {
  return a.type == b.type && a.format == b.format;
}

inline int32_t dtype_of(const PluginTensorDesc& tensor) noexcept {
  return tensor.type == DataType::kHALF ? NDP_FP16 : NDP_FP32;
}

inline int32_t layout_of(const PluginTensorDesc& tensor) noexcept {
  return tensor.format == TensorFormat::kLINEAR ? NDP_NCHW : NDP_NHWC;
}

// TensorRT counts in int64; what does not fit becomes -1, which every launcher refuses.
inline int32_t side(const Dims& dims, int32_t axis) noexcept {
  const int64_t value = dims.d[axis];
  return value >= 0 && value <= INT32_MAX ? static_cast<int32_t>(value) : -1;
}

// [N, C, H, W] into the fields that both structs of the kernels have.
template <typename Args>
void set_map(Args* args, const PluginTensorDesc& tensor, const Dims& dims) noexcept {
  args->dtype = dtype_of(tensor);
  args->layout = layout_of(tensor);
  args->images = side(dims, 0);
  args->channels = side(dims, 1);
  args->height = side(dims, 2);
  args->width = side(dims, 3);
}

// Only the batch may vary within one engine.
inline bool only_batch_varies(const DynamicPluginTensorDesc& tensor) noexcept {
  if (tensor.min.nbDims != 4 || tensor.max.nbDims != 4) return false;
  for (int axis = 1; axis < 4; ++axis)
    if (tensor.min.d[axis] != tensor.max.d[axis]) return false;
  return true;
}

// The number in the field `name` of `type`, one of it; false where there is no such field.
template <typename Number>
bool read_field(const PluginFieldCollection* fields, const char* name, PluginFieldType type,
                Number* value) noexcept {
  for (int32_t i = 0; fields && i < fields->nbFields; ++i) {
    const PluginField& field = fields->fields[i];
    if (!field.name || std::strcmp(field.name, name) != 0) continue;
    if (field.type != type || field.length != 1 || !field.data) return false;
    std::memcpy(value, field.data, sizeof(Number));
    return true;
  }
  return false;
}

// Core, build and runtime in one object. `Self` has kName, kInputs, kOutputs, kMap (the input
// whose shape and type the outputs have) and is copied by its copy constructor.
template <typename Self>
class Adapter : public IPluginV3,
                public IPluginV3OneCore,
                public IPluginV3OneBuild,
                public IPluginV3OneRuntime {
 public:
  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }

  IPluginV3* clone() noexcept override {
    return new (std::nothrow) Self(static_cast<const Self&>(*this));
  }

  // The plugins hold nothing of a context: a copy is enough.
  IPluginV3* attachToContext(IPluginResourceContext* /*context*/) noexcept override {
    return clone();
  }

  AsciiChar const* getPluginName() const noexcept override { return Self::kName; }
  AsciiChar const* getPluginVersion() const noexcept override { return "1"; }
  AsciiChar const* getPluginNamespace() const noexcept override { return ""; }

  int32_t getNbOutputs() const noexcept override { return Self::kOutputs; }

  int32_t getOutputDataTypes(DataType* outputs, int32_t outputs_count, DataType const* inputs,
                             int32_t inputs_count) const noexcept override {
    if (!counted(inputs_count, outputs_count)) return 1;
    for (int32_t i = 0; i < outputs_count; ++i) outputs[i] = inputs[Self::kMap];
    return 0;
  }

  int32_t getOutputShapes(DimsExprs const* inputs, int32_t inputs_count,
                          DimsExprs const* /*values*/, int32_t /*values_count*/,
                          DimsExprs* outputs, int32_t outputs_count,
                          IExprBuilder& /*builder*/) noexcept override {
    if (!counted(inputs_count, outputs_count) || inputs[Self::kMap].nbDims != 4) return 1;
    for (int32_t i = 0; i < outputs_count; ++i) outputs[i] = inputs[Self::kMap];
    return 0;
  }

  int32_t onShapeChange(PluginTensorDesc const* /*inputs*/, int32_t inputs_count,
                        PluginTensorDesc const* /*outputs*/,
                        int32_t outputs_count) noexcept override {
    return counted(inputs_count, outputs_count) ? 0 : 1;
  }

 protected:
  static bool counted(int32_t inputs, int32_t outputs) noexcept {
    if (inputs == Self::kInputs && outputs == Self::kOutputs) return true;
    log_error(Self::kName, "wrong number of inputs or outputs; the graph is not one of ours");
    return false;
  }

  // What a launcher said, as TensorRT wants it.
  static int32_t told(const char* error) noexcept {
    if (!error) return 0;
    log_error(Self::kName, error);
    return 1;
  }
};

// `Plugin` has kName, `attributes()` and `make(fields, phase)`, nullptr where a field is wrong.
template <typename Plugin>
class Creator : public IPluginCreatorV3One {
 public:
  IPluginV3* createPlugin(AsciiChar const* /*layer*/, PluginFieldCollection const* fields,
                          TensorRTPhase phase) noexcept override {
    return Plugin::make(fields, phase);
  }
  PluginFieldCollection const* getFieldNames() noexcept override { return Plugin::attributes(); }
  AsciiChar const* getPluginName() const noexcept override { return Plugin::kName; }
  AsciiChar const* getPluginVersion() const noexcept override { return "1"; }
  AsciiChar const* getPluginNamespace() const noexcept override { return ""; }
};

}  // namespace ndp_plugin
