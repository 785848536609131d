// Threads of the OpenMP runtime that PyTorch has loaded.
//
// A second runtime would have threads of its own, which fight with PyTorch's for the processors. So none is linked: the
// two functions below are found in PyTorch's when the kernel is loaded, be it GCC's libgomp, LLVM's libomp or Intel's
// libiomp5. GCC turns `#pragma omp parallel` into the same call, but Clang into another, which libgomp does not have.
#pragma once

#include <atomic>
#include <cstdint>
#include <new>

extern "C" {
void GOMP_parallel(void (*work)(void*), void* data, unsigned num_threads, unsigned flags);
int omp_get_thread_num();
}

// Let up to `count` threads do the same work, and wait for all of them. The caller has asked PyTorch for its number of
// threads, by which the runtime knows it. What is beyond `count` stays idle: libgomp starts its threads anew where one
// call wants fewer of them than the last.
template <typename Work>
void in_parallel(int64_t count, const Work& work) {
  if (count <= 1) return work();
  struct Shared {
    const Work& work;
    int64_t count;
    std::atomic<bool> no_memory{false};
  } shared{work, count};
  const auto run = [](void* data) {
    Shared& shared = *static_cast<Shared*>(data);
    if (omp_get_thread_num() >= shared.count) return;
    try {
      shared.work();
    } catch (const std::bad_alloc&) {  // which must not leave a thread
      shared.no_memory = true;
    }
  };
  GOMP_parallel(run, &shared, 0, 0);
  if (shared.no_memory) throw std::bad_alloc();
}
