// Calls launchers on buffers of their exact size: what the sanitizers of tests/kernels run.
//
//   driver CASE OUT [CASE OUT ...]
//
// A case is little-endian: the kernel's name in 16 bytes, zero-padded; nine int32 (dtype,
// layout, images, channels, height, width, ref_height, ref_width, multiprocessors); one float32
// (softmax_scale); then the launcher's inputs in its struct's order. OUT gets its outputs in that
// order. A kernel ignores the numbers that its struct does not have.
//
// Outputs and workspace start as 0xFF bytes, NaN in either type, so that an element left
// unwritten shows. Without a sanitizer each case runs twice on one workspace (what the first run
// left there may not show in the second); without AddressSanitizer, which knows the last byte of
// every buffer, each one has a guard band on both sides.
//
// Exit: 0 done; 1 the launcher refused (its line is on stderr); 2 not a case, or no memory;
// 3 an input or a guard band was written to, or the second run differs from the first.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../src/ndp_kernels.h"

namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kGuard = 0;
#else
constexpr size_t kGuard = 256;  // a multiple of every alignment
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kRounds = 1;
#else
constexpr int kRounds = 2;
#endif
constexpr size_t kAlign = 16, kWorkspaceAlign = 256;
constexpr unsigned char kSentinel = 0xFF, kGuardByte = 0xA5;

struct Case {
  char kernel[16];
  int32_t dtype, layout, images, channels, height, width, ref_height, ref_width, multiprocessors;
  float softmax_scale;
};

[[noreturn]] void stop(int code, const std::string& line) {
  std::fprintf(stderr, "driver: %s\n", line.c_str());
  std::exit(code);
}

class Buffer {
 public:
  Buffer(const char* name, size_t bytes, size_t align) : name_(name), bytes_(bytes) {
    void* block = nullptr;
    if (posix_memalign(&block, align, bytes + 2 * kGuard) != 0) stop(2, "out of memory");
    block_.reset(static_cast<unsigned char*>(block));
    std::memset(block, kGuardByte, bytes + 2 * kGuard);
  }

  unsigned char* data() const { return block_.get() + kGuard; }
  size_t bytes() const { return bytes_; }

  // Remembers what is in it now as what has to be there later.
  void keep() { kept_.assign(data(), data() + bytes_); }
  bool as_kept() const { return std::memcmp(data(), kept_.data(), bytes_) == 0; }

  void check_guards() const {
    for (size_t i = 0; i < kGuard; ++i) {
      if (block_[i] != kGuardByte) stop(3, "wrote before " + name_);
      if (data()[bytes_ + i] != kGuardByte) stop(3, "wrote behind " + name_);
    }
  }

  const std::string& name() const { return name_; }

 private:
  struct Free {
    void operator()(unsigned char* p) const { std::free(p); }
  };
  std::string name_;
  size_t bytes_;
  std::unique_ptr<unsigned char[], Free> block_;
  std::vector<unsigned char> kept_;
};

// The buffers of one call. Those handed out stay where they are until the call is over.
class Buffers {
 public:
  explicit Buffers(FILE* file) : file_(file) {}

  template <typename T>
  const T* input(const char* name, size_t bytes) {
    inputs_.emplace_back(name, bytes, kAlign);
    if (std::fread(inputs_.back().data(), 1, bytes, file_) != bytes) {
      stop(2, std::string("the case ends inside ") + name);
    }
    inputs_.back().keep();
    return reinterpret_cast<const T*>(inputs_.back().data());
  }

  template <typename T>
  T* output(const char* name, size_t bytes) {
    outputs_.emplace_back(name, bytes, kAlign);
    return reinterpret_cast<T*>(outputs_.back().data());
  }

  void* workspace(size_t bytes) {
    workspace_ = std::make_unique<Buffer>("workspace", bytes, kWorkspaceAlign);
    std::memset(workspace_->data(), kSentinel, bytes);
    return workspace_->data();
  }

  // Launches, checks what must hold around a launch, writes the outputs.
  template <typename Args>
  void run(const char* (*launch)(const Args*, void*), const Args& args, const char* path) {
    for (int round = 0; round < kRounds; ++round) {
      for (Buffer& b : outputs_) std::memset(b.data(), kSentinel, b.bytes());
      if (const char* refused = launch(&args, nullptr)) stop(1, refused);
      check(round);
    }
    FILE* out = std::fopen(path, "wb");
    if (!out) stop(2, std::string("cannot write ") + path);
    for (const Buffer& b : outputs_) std::fwrite(b.data(), 1, b.bytes(), out);
    if (std::fclose(out) != 0) stop(2, std::string("cannot write ") + path);
  }

 private:
  void check(int round) {
    for (const Buffer& b : inputs_) {
      b.check_guards();
      if (!b.as_kept()) stop(3, "wrote to the input " + b.name());
    }
    for (Buffer& b : outputs_) {
      b.check_guards();
      if (round == 0) b.keep();
      if (!b.as_kept()) stop(3, "a second run gives another " + b.name());
    }
    if (workspace_) workspace_->check_guards();
  }

  FILE* file_;
  std::vector<Buffer> inputs_, outputs_;
  std::unique_ptr<Buffer> workspace_;
};

size_t map_bytes(const Case& c) {
  const size_t elements = size_t(c.images) * c.channels * c.height * c.width;
  return elements * (c.dtype == NDP_FP16 ? 2 : 4);
}

void run_rbfrm(const Case& c, FILE* file, const char* out) {
  Buffers buffers(file);
  NdpRbfrm args{};
  args.dtype = c.dtype, args.layout = c.layout;
  args.images = c.images, args.channels = c.channels;
  args.height = c.height, args.width = c.width;
  args.ref_height = c.ref_height, args.ref_width = c.ref_width;
  args.multiprocessors = c.multiprocessors;
  args.softmax_scale = c.softmax_scale;
  Case reference = c;
  reference.images = 1, reference.height = c.ref_height, reference.width = c.ref_width;
  const size_t prepared = ndp_rbfrm_prepared_floats(c.channels, c.ref_height, c.ref_width);
  args.features = buffers.input<void>("features", map_bytes(c));
  args.reference = buffers.input<void>("reference", map_bytes(reference));
  args.prepared = buffers.input<float>("prepared", prepared * sizeof(float));
  args.rep2 = buffers.output<void>("rep2", map_bytes(c));
  args.rep4 = buffers.output<void>("rep4", map_bytes(c));
  args.fused = buffers.output<void>("fused", map_bytes(c));
  args.workspace_bytes = ndp_rbfrm_workspace_bytes(&args);
  args.workspace = buffers.workspace(args.workspace_bytes);
  buffers.run(ndp_rbfrm, args, out);
}

void run_ffm_select(const Case& c, FILE* file, const char* out) {
  Buffers buffers(file);
  NdpFfmSelect args{};
  args.dtype = c.dtype, args.layout = c.layout;
  args.images = c.images, args.channels = c.channels;
  args.height = c.height, args.width = c.width;
  args.logits = buffers.input<void>("logits", 3 * map_bytes(c));
  args.rep4 = buffers.input<void>("rep4", map_bytes(c));
  args.rep2 = buffers.input<void>("rep2", map_bytes(c));
  args.features = buffers.input<void>("features", map_bytes(c));
  args.selected = buffers.output<void>("selected", map_bytes(c));
  buffers.run(ndp_ffm_select, args, out);
}

void run_smooth_max(const Case& c, FILE* file, const char* out) {
  Buffers buffers(file);
  NdpSmoothMax args{};
  args.images = c.images, args.height = c.height, args.width = c.width;
  const size_t bytes = size_t(c.images) * c.height * c.width * sizeof(float);
  args.maps = buffers.input<float>("maps", bytes);
  args.smoothed = buffers.output<float>("smoothed", bytes);
  args.peaks = buffers.output<float>("peaks", c.images * sizeof(float));
  args.workspace_bytes = ndp_smooth_max_workspace_bytes(&args);
  args.workspace = buffers.workspace(args.workspace_bytes);
  buffers.run(ndp_smooth_max, args, out);
}

struct Close {
  void operator()(FILE* file) const { std::fclose(file); }
};

void run(const char* path, const char* out) {
  const std::unique_ptr<FILE, Close> file(std::fopen(path, "rb"));
  if (!file) stop(2, std::string("cannot read ") + path);
  Case c;
  if (std::fread(&c, sizeof c, 1, file.get()) != 1) stop(2, "the case has no head");
  const std::string kernel(c.kernel, strnlen(c.kernel, sizeof c.kernel));
  if (kernel == "rbfrm") return run_rbfrm(c, file.get(), out);
  if (kernel == "ffm_select") return run_ffm_select(c, file.get(), out);
  if (kernel == "smooth_max") return run_smooth_max(c, file.get(), out);
  stop(2, "no kernel " + kernel);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc % 2 == 0) stop(2, "usage: driver CASE OUT [CASE OUT ...]");
  for (int i = 1; i < argc; i += 2) run(argv[i], argv[i + 1]);
  return 0;
}
