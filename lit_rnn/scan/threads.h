// Work in shares of the batch's rows, one a thread.

#pragma once

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <cstdint>
#include <vector>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

// torch's OpenMP library, called by the names that GCC's code calls it by: any compiler will do, and none links another.
struct OpenMP {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned);
  int (*thread)();
  int (*threads)();
};
template <class Function> void find(Function& function, const char* name) {
  function = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
}
const OpenMP openmp = [] {
  OpenMP found;
  find(found.parallel, "GOMP_parallel");
  find(found.thread, "omp_get_thread_num");
  find(found.threads, "omp_get_num_threads");
  return found;
}();

// part(0) .. part(threads - 1), each on a thread: torch's, or where it has no OpenMP, threads of our own.
template <class Part> void on_threads(int threads, const Part& part) {
  if (threads == 1) return part(0);
  if (openmp.parallel && openmp.thread && openmp.threads) {
    struct Team {
      const Part& part;
      int parts;
    } team{part, threads};
    const auto run = [](void* given) {  // the team may be smaller than asked for
      const Team& team = *static_cast<const Team*>(given);
      for (int i = openmp.thread(); i < team.parts; i += openmp.threads()) team.part(i);
    };
    return openmp.parallel(run, &team, unsigned(threads), 0);
  }
  struct Other {
    const Part* part;
    int i;
    pthread_t id;
    bool started;
  };
  std::vector<Other> others;
  for (int i = 1; i < threads; ++i) others.push_back({&part, i, {}, false});
  const auto run = [](void* given) -> void* {
    const Other& other = *static_cast<const Other*>(given);
    (*other.part)(other.i);
    return nullptr;
  };
  for (auto& other : others) other.started = pthread_create(&other.id, nullptr, run, &other) == 0;
  part(0);
  for (auto& other : others) other.started ? void(pthread_join(other.id, nullptr)) : part(other.i);
}

// Runs work(thread, first row, last row) on as many threads as there are shares, this one among them, where share i is
// of rows cuts[i] to cuts[i + 1]; all flush denormals if this does.
template <class Work> void share(const std::vector<int>& cuts, Work work) {
#if defined(__SSE2__)
  const unsigned mode = _mm_getcsr();
#endif
  on_threads(int(cuts.size()) - 1, [&](int i) {
#if defined(__SSE2__)
    const unsigned before = _mm_getcsr();
    _mm_setcsr(mode);
#endif
    work(i, cuts[i], cuts[i + 1]);
#if defined(__SSE2__)
    _mm_setcsr(before);
#endif
  });
}
template <class Work> void share(int rows, int threads, Work work) {
  threads = std::max(1, std::min(threads, rows));
  std::vector<int> cuts(threads + 1);
  for (int i = 0; i <= threads; ++i) cuts[i] = int(int64_t(rows) * i / threads);
  share(cuts, work);
}

// Shares of as many steps each, where the first rows[t] rows are at work at step t, and ever fewer.
inline std::vector<int> even_cuts(const int* rows, int steps, int threads) {
  const int batch = rows[0];
  threads = std::max(1, std::min(threads, batch));
  std::vector<int> cuts(threads + 1, batch);
  int64_t total = 0, done = 0;
  for (int t = 0; t < steps; ++t) total += rows[t];
  int cut = 0, length = steps;
  for (int row = 0; row < batch; ++row) {
    for (; cut < threads && done * threads >= total * cut; ++cut) cuts[cut] = row;
    while (length && rows[length - 1] <= row) --length;
    done += length;
  }
  return cuts;
}

}  // namespace
