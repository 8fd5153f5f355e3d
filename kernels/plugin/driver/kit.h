// What the checks of the plugin share: TensorRT's side played by small fakes, descriptions of the
// two plugins' tensors, and memory.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "../adapter.h"

extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept;
extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) noexcept;

namespace ndp_driver {

using namespace nvinfer1;

inline int checks = 0;

#define CHECK(condition) ::ndp_driver::check((condition), #condition, __FILE__, __LINE__)
inline void check(bool holds, const char* condition, const char* file, int line) {
  if (!holds) {
    std::fprintf(stderr, "%s:%d: not so: %s\n", file, line, condition);
    std::exit(1);
  }
  ++checks;
}

// TensorRT's logger, lent through the finder: keeps what the plugins said last.
struct Logger final : ILogger {
  std::string last;
  void log(Severity severity, AsciiChar const* text) noexcept override {
    last = severity == Severity::kERROR ? text : "?";
  }
};
inline Logger logger;
struct Finder final : ILoggerFinder {
  ILogger* findLogger() override { return &logger; }
};
inline Finder finder;

inline Dims dims(std::initializer_list<int64_t> sides) {
  Dims out{};
  for (const int64_t each : sides) out.d[out.nbDims++] = each;
  return out;
}

inline PluginTensorDesc desc(Dims sides, DataType type, TensorFormat format) {
  PluginTensorDesc out{};
  out.dims = sides, out.type = type, out.format = format, out.scale = -1.0f;
  return out;
}

// As in a build with a free batch: the dimension is -1, the profile goes from 1 to `most`.
inline DynamicPluginTensorDesc dynamic(PluginTensorDesc tensor, int64_t most) {
  DynamicPluginTensorDesc out{tensor, tensor.dims, tensor.dims, tensor.dims};
  if (most > 0) out.desc.dims.d[0] = -1, out.min.d[0] = 1, out.opt.d[0] = out.max.d[0] = most;
  return out;
}

inline IPluginCreatorV3One* creator(const std::string& name) {
  int32_t count = 0;
  IPluginCreatorInterface* const* const all = getCreators(count);
  for (int32_t i = 0; i < count; ++i) {
    CHECK(std::string(all[i]->getInterfaceInfo().kind) == "PLUGIN CREATOR_V3ONE");
    auto* const one = static_cast<IPluginCreatorV3One*>(all[i]);
    if (one->getPluginName() == name) return one;
  }
  return nullptr;
}

// A plugin and its three faces.
struct Plugin {
  std::unique_ptr<IPluginV3> whole;
  explicit Plugin(IPluginV3* made) : whole(made) {}
  IPluginV3OneCore* core() const {
    return static_cast<IPluginV3OneCore*>(face(PluginCapabilityType::kCORE));
  }
  IPluginV3OneBuild* build() const {
    return static_cast<IPluginV3OneBuild*>(face(PluginCapabilityType::kBUILD));
  }
  IPluginV3OneRuntime* runtime() const {
    return static_cast<IPluginV3OneRuntime*>(face(PluginCapabilityType::kRUNTIME));
  }

 private:
  IPluginCapability* face(PluginCapabilityType type) const {
    CHECK(whole != nullptr);
    IPluginCapability* const found = whole->getCapabilityInterface(type);
    CHECK(found != nullptr);
    return found;
  }
};

inline IPluginV3* make_rbfrm(float scale, int32_t half) {
  const PluginField fields[] = {{"softmax_scale", &scale, PluginFieldType::kFLOAT32, 1},
                                {"half", &half, PluginFieldType::kINT32, 1}};
  const PluginFieldCollection collection{2, fields};
  return creator("RBFRM")->createPlugin("layer", &collection, TensorRTPhase::kBUILD);
}

inline IPluginV3* make_ffm_select() {
  const PluginFieldCollection none{};
  return creator("FFMSelect")->createPlugin("layer", &none, TensorRTPhase::kBUILD);
}

// Into an engine and out again.
inline IPluginV3* reloaded(const Plugin& plugin) {
  return creator(plugin.core()->getPluginName())
      ->createPlugin("layer", plugin.runtime()->getFieldsToSerialize(), TensorRTPhase::kRUNTIME);
}

// 256-byte aligned memory, filled with bytes of a plain generator, or with small numbers.
class Array {
 public:
  explicit Array(size_t bytes) : bytes_(bytes) {
    data_.reset(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
    CHECK(data_ != nullptr);
    std::memset(data_.get(), 0xFF, bytes);
  }
  Array(DataType type, size_t count) : Array(count * (type == DataType::kHALF ? 2 : 4)) {
    static uint32_t state = 1;
    for (size_t i = 0; i < count; ++i) {
      state = state * 1664525u + 1013904223u;
      const uint32_t sign = state >> 31, part = state >> 9 & 0x3FF;  // 0.25 to 0.5, either sign
      const uint16_t half = static_cast<uint16_t>(sign << 15 | 0x3400 | part);
      const float number = (sign ? -1.0f : 1.0f) * (0.25f + static_cast<float>(part) / 4096.0f);
      if (type == DataType::kHALF)
        std::memcpy(static_cast<char*>(data_.get()) + 2 * i, &half, 2);
      else
        std::memcpy(static_cast<char*>(data_.get()) + 4 * i, &number, 4);
    }
  }
  void* data() const { return data_.get(); }
  size_t bytes() const { return bytes_; }
  bool written() const {
    const Array untouched(bytes_);
    return std::memcmp(data(), untouched.data(), bytes_) != 0;
  }
  bool operator==(const Array& other) const {
    return bytes_ == other.bytes_ && std::memcmp(data(), other.data(), bytes_) == 0;
  }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  size_t bytes_;
  std::unique_ptr<void, Free> data_;
};

constexpr int64_t kC = 16, kH = 12, kW = 8, kRefH = 8, kRefW = 16;

inline std::vector<PluginTensorDesc> rbfrm_tensors(int64_t n, DataType type, TensorFormat format) {
  const int64_t floats = ndp_rbfrm_prepared_floats(kC, kRefH, kRefW);
  const auto map = desc(dims({n, kC, kH, kW}), type, format);
  return {map,
          desc(dims({1, kC, kRefH, kRefW}), type, format),
          desc(dims({floats}), DataType::kFLOAT, TensorFormat::kLINEAR),
          map,
          map,
          map};
}

inline std::vector<PluginTensorDesc> ffm_tensors(int64_t n, DataType type, TensorFormat format) {
  const auto map = desc(dims({n, kC, kH, kW}), type, format);
  return {desc(dims({n, 3 * kC, kH, kW}), type, format), map, map, map, map};
}

inline std::vector<DynamicPluginTensorDesc> profile(const std::vector<PluginTensorDesc>& tensors,
                                             int64_t most) {
  std::vector<DynamicPluginTensorDesc> out;
  for (const auto& one : tensors) {
    const bool batched = one.dims.nbDims == 4 && one.dims.d[0] != 1;
    out.push_back(dynamic(one, batched ? most : 0));
  }
  return out;
}

void build_phase();
void run_phase();

}  // namespace ndp_driver
