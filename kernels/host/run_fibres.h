// A block's threads as fibres on one operating-system thread; blocks spread over the cores.
// Included by runner.cpp alone.
#pragma once

#include <ucontext.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>

namespace ndp_host {

constexpr size_t kStack = 256 * 1024;

enum class State { ready, at_warp, at_block, done };

struct Fibre {
  Thread thread;
  State state = State::ready;
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
};

struct Block {
  std::vector<Fibre> fibres;
  std::vector<float> slots;
  const std::function<void()>* kernel = nullptr;
  void* shared = nullptr;
  size_t shared_bytes = 0;
  ucontext_t scheduler;
  Fibre* running = nullptr;
};

inline thread_local Block* here = nullptr;

inline void wait_as(State state) {
  Fibre* self = here->running;
  self->state = state;
  swapcontext(&self->context, &here->scheduler);
}

void block_barrier() { wait_as(State::at_block); }
void warp_barrier() { wait_as(State::at_warp); }

inline void enter() {
  (*here->kernel)();
  if (!now->open.empty()) fail("a thread ended with copies that it did not commit");
  here->running->state = State::done;
  swapcontext(&here->running->context, &here->scheduler);
}

inline void resume(Block& block, Fibre& fibre) {
  block.running = &fibre;
  now = &fibre.thread;
  swapcontext(&block.scheduler, &fibre.context);
}

inline bool all(const Fibre* from, const Fibre* to, State state) {
  return std::all_of(from, to, [state](const Fibre& f) { return f.state == state; });
}

inline void release(Fibre* from, Fibre* to) {
  std::for_each(from, to, [](Fibre& f) { f.state = State::ready; });
}

// Lets fibres run until each waits or has ended, then opens the barriers that are complete.
inline void run_block(Block& block) {
  Fibre* const first = block.fibres.data();
  Fibre* const last = first + block.fibres.size();
  for (bool upwards = true; !all(first, last, State::done); upwards = !upwards) {
    for (size_t i = 0; i < block.fibres.size(); ++i) {
      Fibre& fibre = block.fibres[upwards ? i : block.fibres.size() - 1 - i];
      if (fibre.state == State::ready) resume(block, fibre);
    }
    bool opened = false;
    for (Fibre* warp = first; warp < last; warp += kWarp) {
      Fibre* const end = std::min(warp + kWarp, last);
      if (all(warp, end, State::at_warp)) release(warp, end), opened = true;
    }
    if (all(first, last, State::at_block)) release(first, last), opened = true;
    if (!opened && !all(first, last, State::done)) fail("threads wait at different barriers");
  }
}

inline void start_block(Block& block, dim3 index, dim3 block_dim, dim3 grid) {
  for (unsigned i = 0; i < block_dim.x; ++i) {
    Fibre& fibre = block.fibres[i];
    fibre.thread = Thread{dim3(i, 0, 0), index, block_dim, grid, &block, {}, {}};
    fibre.state = State::ready;
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.get();
    fibre.context.uc_stack.ss_size = kStack;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, enter, 0);
  }
}

void* shared_memory(size_t bytes) {
  if (bytes > here->shared_bytes) fail("shared memory: the launch gave less than the kernel takes");
  return here->shared;
}

float* warp_slot(int lane) {
  return &here->slots[now->thread.x / kWarp * kWarp + static_cast<unsigned>(lane)];
}

inline void work(dim3 grid, dim3 block_dim, size_t shared_bytes,
                 const std::function<void()>& kernel, std::atomic<unsigned>& next) {
  Block block;
  block.fibres = std::vector<Fibre>(block_dim.x);
  block.slots.assign(block_dim.x, 0.0f);
  block.kernel = &kernel;
  block.shared_bytes = shared_bytes;
  here = &block;
  for (unsigned i; (i = next++) < grid.x * grid.y * grid.z;) {
    block.shared = poisoned(shared_bytes);
    start_block(block, dim3(i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y), block_dim, grid);
    run_block(block);
    std::free(block.shared);
  }
  here = nullptr;
  now = nullptr;
}

void run(dim3 grid, dim3 block_dim, size_t shared_bytes, const std::function<void()>& kernel) {
  std::atomic<unsigned> next{0};
  const unsigned blocks = grid.x * grid.y * grid.z;
  const unsigned workers = std::min(blocks, std::max(1u, std::thread::hardware_concurrency()));
  std::vector<std::thread> others;
  for (unsigned i = 1; i < workers; ++i)
    others.emplace_back([&] { work(grid, block_dim, shared_bytes, kernel, next); });
  work(grid, block_dim, shared_bytes, kernel, next);
  for (std::thread& other : others) other.join();
}

}  // namespace ndp_host
