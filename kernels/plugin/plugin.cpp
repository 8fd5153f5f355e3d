// The plugin library: its two creators and the two entry points that TensorRT's registry looks up
// in a library it loads (IPluginRegistry::loadLibrary, trtexec --dynamicPlugins).
//
// With NDP_PLUGIN_REGISTER the creators also register themselves when the library is loaded by
// other means (dlopen, linking). Not both: loadLibrary refuses a library whose plugins are
// registered already.
#include <atomic>
#include <cstdio>

#include "ffm_select_plugin.h"
#include "rbfrm_plugin.h"

#define NDP_EXPORT __attribute__((visibility("default")))

namespace ndp_plugin {
namespace {

std::atomic<ILoggerFinder*> logger_finder{nullptr};

ILogger* logger() noexcept {
  try {  // findLogger is not noexcept
    ILoggerFinder* const finder = logger_finder.load();
    return finder ? finder->findLogger() : nullptr;
  } catch (...) {
    return nullptr;
  }
}

}  // namespace

void log_error(const char* who, const char* line) noexcept {
  char text[256];
  std::snprintf(text, sizeof(text), "ndp-edge plugin %s: %s", who, line);
  if (ILogger* const to = logger())
    to->log(ILogger::Severity::kERROR, text);
  else
    std::fprintf(stderr, "%s\n", text);
}

}  // namespace ndp_plugin

extern "C" NDP_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept {
  ndp_plugin::logger_finder.store(finder);
}

extern "C" NDP_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(
    int32_t& count) noexcept {
  static ndp_plugin::Creator<ndp_plugin::RbfrmPlugin> rbfrm;
  static ndp_plugin::Creator<ndp_plugin::FfmSelectPlugin> ffm_select;
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&rbfrm, &ffm_select};
  count = 2;
  return creators;
}

#ifdef NDP_PLUGIN_REGISTER
namespace {
nvinfer1::PluginRegistrar<ndp_plugin::Creator<ndp_plugin::RbfrmPlugin>> register_rbfrm;
nvinfer1::PluginRegistrar<ndp_plugin::Creator<ndp_plugin::FfmSelectPlugin>> register_ffm_select;
}  // namespace
#endif
