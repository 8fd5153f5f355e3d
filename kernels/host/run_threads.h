// A block's threads as real threads, one block at a time: slow, and what the thread sanitizer
// understands. Included by runner.cpp alone.
#pragma once

#include <pthread.h>

#include <mutex>
#include <thread>

namespace ndp_host {

struct Barrier {
  explicit Barrier(unsigned count) { pthread_barrier_init(&barrier, nullptr, count); }
  ~Barrier() { pthread_barrier_destroy(&barrier); }
  void wait() { pthread_barrier_wait(&barrier); }
  pthread_barrier_t barrier;
};

struct Block {
  explicit Block(unsigned threads) : all(threads), slots(threads) {
    for (unsigned i = 0; i < threads; i += kWarp)
      warps.push_back(std::make_unique<Barrier>(std::min<unsigned>(kWarp, threads - i)));
  }
  Barrier all;
  std::vector<std::unique_ptr<Barrier>> warps;
  std::vector<float> slots;
  void* shared = nullptr;
  size_t shared_bytes = 0;
};

void block_barrier() { now->home->all.wait(); }
void warp_barrier() { now->home->warps[now->thread.x / kWarp]->wait(); }

void* shared_memory(size_t bytes) {
  if (bytes > now->home->shared_bytes)
    fail("shared memory: the launch gave less than the kernel takes");
  return now->home->shared;
}

float* warp_slot(int lane) {
  return &now->home->slots[now->thread.x / kWarp * kWarp + static_cast<unsigned>(lane)];
}

void run(dim3 grid, dim3 block_dim, size_t shared_bytes, const std::function<void()>& kernel) {
  for (unsigned i = 0; i < grid.x * grid.y * grid.z; ++i) {
    Block block(block_dim.x);
    block.shared_bytes = shared_bytes;
    block.shared = poisoned(shared_bytes);
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < block_dim.x; ++t)
      threads.emplace_back([&, t] {
        const dim3 index(i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y);
        Thread self{dim3(t, 0, 0), index, block_dim, grid, &block, {}, {}};
        now = &self;
        kernel();
        now = nullptr;
      });
    for (std::thread& thread : threads) thread.join();
    std::free(block.shared);
  }
}

}  // namespace ndp_host
