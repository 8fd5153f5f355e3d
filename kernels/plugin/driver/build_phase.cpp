// Creators, fields, types, shapes, formats, sizes and workspace: what TensorRT asks at build time.
#include "kit.h"

namespace ndp_driver {
namespace {

struct Builder final : IExprBuilder {
} expressions;
struct Size final : IDimensionExpr {};

void names_and_faces() {
  int32_t count = 0;
  getCreators(count);
  CHECK(count == 2);
  CHECK(creator("nothing") == nullptr);
  for (const std::string name : {"RBFRM", "FFMSelect"}) {
    auto* const from = creator(name);
    CHECK(from && std::string(from->getPluginVersion()) == "1");
    CHECK(std::string(from->getPluginNamespace()).empty());
    const Plugin plugin(name == "RBFRM" ? make_rbfrm(1.0f, 0) : make_ffm_select());
    CHECK(plugin.core()->getPluginName() == name);
    CHECK(std::string(plugin.core()->getPluginVersion()) == "1");
    CHECK(std::string(plugin.core()->getPluginNamespace()).empty());
    CHECK(plugin.build()->getTimingCacheID() != nullptr);
    CHECK(std::string(plugin.build()->getInterfaceInfo().kind) == "PLUGIN_V3ONE_BUILD");
    CHECK(plugin.runtime()->setTactic(0) == 0);
  }
  const PluginFieldCollection* const names = creator("RBFRM")->getFieldNames();
  CHECK(names->nbFields == 2 && std::string(names->fields[0].name) == "softmax_scale");
  CHECK(std::string(names->fields[1].name) == "half");
  CHECK(creator("FFMSelect")->getFieldNames()->nbFields == 0);
  const Plugin one(make_rbfrm(1.0f, 0)), two(make_rbfrm(2.0f, 0)), half(make_rbfrm(1.0f, 1));
  CHECK(std::string(one.build()->getTimingCacheID()) != two.build()->getTimingCacheID());
  CHECK(std::string(one.build()->getTimingCacheID()) != half.build()->getTimingCacheID());
}

void wrong_fields_are_refused() {
  for (const float scale : {0.0f, -1.0f, 65.0f, __builtin_nanf("")}) {
    CHECK(make_rbfrm(scale, 0) == nullptr);
    CHECK(logger.last.find("softmax_scale") != std::string::npos);
  }
  CHECK(make_rbfrm(1.0f, 2) == nullptr);
  CHECK(logger.last == "ndp-edge plugin RBFRM: half must be one int32, 0 or 1");
  const float scale = 1.0f;
  const int32_t half = 0, processors = 4;
  const PluginField scale_field{"softmax_scale", &scale, PluginFieldType::kFLOAT32, 1};
  const PluginField half_field{"half", &half, PluginFieldType::kINT32, 1};
  const PluginField processors_field{"multiprocessors", &processors, PluginFieldType::kINT32, 1};
  const auto refused = [](std::vector<PluginField> fields, TensorRTPhase phase) {
    const PluginFieldCollection all{static_cast<int32_t>(fields.size()), fields.data()};
    const Plugin made(creator("RBFRM")->createPlugin("layer", &all, phase));
    return made.whole == nullptr;
  };
  CHECK(refused({}, TensorRTPhase::kBUILD));
  CHECK(refused({scale_field}, TensorRTPhase::kBUILD));
  CHECK(refused({half_field}, TensorRTPhase::kBUILD));
  CHECK(!refused({half_field, scale_field}, TensorRTPhase::kBUILD));
  CHECK(refused({half_field, scale_field}, TensorRTPhase::kRUNTIME));
  CHECK(!refused({half_field, scale_field, processors_field}, TensorRTPhase::kRUNTIME));
  PluginField two = scale_field, wide = scale_field;
  two.length = 2, wide.type = PluginFieldType::kFLOAT64;
  CHECK(refused({two, half_field}, TensorRTPhase::kBUILD));
  CHECK(refused({wide, half_field}, TensorRTPhase::kBUILD));
  CHECK(creator("RBFRM")->createPlugin("layer", nullptr, TensorRTPhase::kBUILD) == nullptr);
}

void types_and_shapes(const Plugin& plugin, std::vector<PluginTensorDesc> tensors, int inputs,
                      int like) {
  const int outputs = static_cast<int>(tensors.size()) - inputs;
  CHECK(plugin.build()->getNbOutputs() == outputs);
  for (const DataType type : {DataType::kFLOAT, DataType::kHALF}) {
    std::vector<DataType> in(inputs, type), out(outputs, DataType::kINT32);
    if (inputs == 3) in[2] = DataType::kFLOAT;  // the prepared vector
    CHECK(plugin.build()->getOutputDataTypes(out.data(), outputs, in.data(), inputs) == 0);
    for (const DataType each : out) CHECK(each == type);
    CHECK(plugin.build()->getOutputDataTypes(out.data(), outputs, in.data(), inputs - 1) != 0);
  }
  Size sizes[8][4];
  std::vector<DimsExprs> in(inputs), out(outputs);
  for (int i = 0; i < inputs; ++i) {
    in[i].nbDims = tensors[i].dims.nbDims;
    for (int axis = 0; axis < in[i].nbDims; ++axis) in[i].d[axis] = &sizes[i][axis];
  }
  const auto shapes = [&](int count) {
    return plugin.build()->getOutputShapes(in.data(), count, nullptr, 0, out.data(), outputs,
                                           expressions);
  };
  CHECK(shapes(inputs) == 0);
  for (const DimsExprs& each : out) {
    CHECK(each.nbDims == 4);
    for (int axis = 0; axis < 4; ++axis) CHECK(each.d[axis] == &sizes[like][axis]);
  }
  CHECK(shapes(inputs + 1) != 0);
  in[like].nbDims = 3;
  CHECK(shapes(inputs) != 0);
}

const DataType kTypes[] = {DataType::kFLOAT, DataType::kHALF, DataType::kINT8, DataType::kINT32,
                           DataType::kBOOL,  DataType::kUINT8, DataType::kBF16};
const TensorFormat kFormats[] = {
    TensorFormat::kLINEAR, TensorFormat::kCHW2,   TensorFormat::kHWC8,  TensorFormat::kCHW4,
    TensorFormat::kCHW16,  TensorFormat::kCHW32,  TensorFormat::kDHWC8, TensorFormat::kCDHW32,
    TensorFormat::kHWC,    TensorFormat::kHWC16,  TensorFormat::kDHWC};

// Which type and format each place may have when all places before it have the first's.
void format_table(const Plugin& plugin, std::vector<PluginTensorDesc> tensors, int inputs,
                  const std::function<bool(DataType, TensorFormat)>& wanted, int plain) {
  const int count = static_cast<int>(tensors.size()), outputs = count - inputs;
  const auto supports = [&](int at) {
    return plugin.build()->supportsFormatCombination(at, profile(tensors, 4).data(), inputs,
                                                     outputs);
  };
  for (const DataType type : kTypes) {
    for (const TensorFormat format : kFormats) {
      tensors[0].type = type, tensors[0].format = format;
      CHECK(supports(0) == wanted(type, format));
      if (!supports(0)) continue;
      for (int at = 1; at < count; ++at) {
        for (const DataType other_type : kTypes) {
          for (const TensorFormat other : kFormats) {
            tensors[at].type = other_type, tensors[at].format = other;
            const bool same = other_type == type && other == format;
            const bool vector = other_type == DataType::kFLOAT && other == TensorFormat::kLINEAR;
            CHECK(supports(at) == (at == plain ? vector : same));
          }
        }
        tensors[at].type = type, tensors[at].format = format;
      }
    }
  }
  CHECK(!supports(-1) && !supports(count));
  tensors[0].type = DataType::kHALF, tensors[0].format = TensorFormat::kHWC8;
  tensors[0].dims.d[1] = 12;  // padded to 16 in memory: not dense
  CHECK(!supports(0));
}

bool either(DataType type, TensorFormat format) {
  if (format == TensorFormat::kLINEAR)
    return type == DataType::kFLOAT || type == DataType::kHALF;
  return (type == DataType::kFLOAT && format == TensorFormat::kHWC) ||
         (type == DataType::kHALF && format == TensorFormat::kHWC8);
}

void configured(const Plugin& plugin, const std::vector<PluginTensorDesc>& tensors, int inputs,
                const std::function<void(DynamicPluginTensorDesc*)>& spoil, bool taken) {
  auto all = profile(tensors, 4);
  spoil(all.data());
  const int outputs = static_cast<int>(tensors.size()) - inputs;
  logger.last.clear();
  const int answer =
      plugin.build()->configurePlugin(all.data(), inputs, all.data() + inputs, outputs);
  CHECK((answer == 0) == taken);
  CHECK(logger.last.empty() == taken);
}

void sizes_are_checked_at_build_time() {
  using Spoil = std::function<void(DynamicPluginTensorDesc*)>;
  const Spoil nothing = [](DynamicPluginTensorDesc*) {};
  const Spoil wild = [](DynamicPluginTensorDesc* in) { in[0].max.d[2] = 16; };
  const Plugin rbfrm(make_rbfrm(1.0f, 1)), ffm(make_ffm_select());
  const auto maps = rbfrm_tensors(4, DataType::kHALF, TensorFormat::kLINEAR);
  const auto logits = ffm_tensors(4, DataType::kHALF, TensorFormat::kLINEAR);
  configured(rbfrm, maps, 3, nothing, true);
  configured(ffm, logits, 4, nothing, true);
  const Spoil wrong[] = {
      wild,
      [](DynamicPluginTensorDesc* in) { in[0].max.d[0] = 65; },
      [](DynamicPluginTensorDesc* in) { in[0].min.d[2] = in[0].max.d[2] = 10; },
      [](DynamicPluginTensorDesc* in) { in[1].max.d[0] = 2; },
      [](DynamicPluginTensorDesc* in) { in[1].max.d[1] = 8; },
      [](DynamicPluginTensorDesc* in) { in[2].max.d[0] += 1; },
      [](DynamicPluginTensorDesc* in) { in[2].max.nbDims = 2; },
  };
  for (const Spoil& spoil : wrong) configured(rbfrm, maps, 3, spoil, false);
  configured(ffm, logits, 4, wild, false);
  for (int at = 0; at < 4; ++at) {
    const Spoil wide = [at](DynamicPluginTensorDesc* in) {
      in[at].min.d[1] = in[at].max.d[1] += 8;
    };
    configured(ffm, logits, 4, wide, false);
  }
}

// TensorRT asks once, for the largest batch; a smaller one may be cut finer and need more.
void workspace_covers_every_batch() {
  const float scale = 1.0f;
  const int32_t half = 1, processors = 46;
  const PluginField fields[] = {{"softmax_scale", &scale, PluginFieldType::kFLOAT32, 1},
                                {"half", &half, PluginFieldType::kINT32, 1},
                                {"multiprocessors", &processors, PluginFieldType::kINT32, 1}};
  const PluginFieldCollection collection{3, fields};
  const Plugin plugin(
      creator("RBFRM")->createPlugin("layer", &collection, TensorRTPhase::kRUNTIME));
  const auto map = desc(dims({8, 512, 16, 16}), DataType::kHALF, TensorFormat::kLINEAR);
  auto reference = map;
  reference.dims.d[0] = 1;
  const auto vector = desc(dims({10336}), DataType::kFLOAT, TensorFormat::kLINEAR);
  const auto all = profile({map, reference, vector, map, map, map}, 8);
  const size_t given = plugin.build()->getWorkspaceSize(all.data(), 3, all.data() + 3, 3);
  NdpRbfrm args{};
  args.dtype = NDP_FP16, args.channels = 512, args.height = args.width = 16;
  args.ref_height = args.ref_width = 16, args.multiprocessors = processors;
  uint64_t most = 0, last = 0;
  for (args.images = 1; args.images <= 8; ++args.images) {
    last = ndp_rbfrm_workspace_bytes(&args);
    CHECK(last > 0 && last <= given);
    most = last > most ? last : most;
  }
  CHECK(given == most && most > last);
  std::printf("workspace: %zu bytes, of which batch 8 alone would ask for %llu\n", given,
              static_cast<unsigned long long>(last));
}

}  // namespace

void build_phase() {
  names_and_faces();
  wrong_fields_are_refused();
  for (const int32_t half : {0, 1}) {
    const Plugin rbfrm(make_rbfrm(1.0f, half));
    const auto maps = rbfrm_tensors(4, DataType::kFLOAT, TensorFormat::kLINEAR);
    types_and_shapes(rbfrm, maps, 3, 0);
    const auto one_type = [half](DataType type, TensorFormat format) {
      return either(type, format) && (type == DataType::kHALF) == (half == 1);
    };
    format_table(rbfrm, maps, 3, one_type, 2);
  }
  const Plugin ffm(make_ffm_select());
  const auto logits = ffm_tensors(4, DataType::kFLOAT, TensorFormat::kLINEAR);
  types_and_shapes(ffm, logits, 4, 3);
  format_table(ffm, logits, 4, either, -1);
  sizes_are_checked_at_build_time();
  workspace_covers_every_batch();
}

}  // namespace ndp_driver
