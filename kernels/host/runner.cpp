// Runs grids on the host; see cuda_words.h for what it imitates.
#include "cuda_words.h"

#include <memory>

namespace ndp_host {

thread_local Thread* now = nullptr;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "ndp_host: %s\n", what);
  std::abort();
}

// Shared memory of its exact size, every byte 0xff: NaN, whether read as half or as float.
static void* poisoned(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 128, std::max<size_t>(bytes, 1))) fail("out of memory");
  std::memset(memory, 0xff, bytes);
  return memory;
}

}  // namespace ndp_host

#ifdef NDP_HOST_THREADS
#include "run_threads.h"
#else
#include "run_fibres.h"
#endif
