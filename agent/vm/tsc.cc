#include "agent/vm/tsc.h"

#include <time.h>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace bunker::agent {
namespace {

#if defined(__x86_64__)
constexpr int64_t kSpanNs = 20'000'000;

int64_t RawNanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

struct Sample {
  uint64_t ticks;
  int64_t ns;
};

// The two clocks read as close together as in the best of some tries: a preemption between them
// would count as time.
Sample ReadBoth() {
  Sample best{};
  uint64_t best_gap = ~uint64_t{0};
  for (int attempt = 0; attempt < 16; ++attempt) {
    const uint64_t before = __rdtsc();
    const int64_t ns = RawNanoseconds();
    const uint64_t after = __rdtsc();
    if (after - before >= best_gap) continue;
    best_gap = after - before;
    best = {before + (after - before) / 2, ns};
  }
  return best;
}

uint64_t Measure() {
  const Sample start = ReadBoth();
  // Spins: a sleep would tell the same, but this is 20 ms once in a daemon's life, and a counter
  // that stops in deep sleep would show up as a wrong rate.
  while (RawNanoseconds() - start.ns < kSpanNs) {
  }
  const Sample end = ReadBoth();
  const double khz = static_cast<double>(end.ticks - start.ticks) * 1e6 /
                     static_cast<double>(end.ns - start.ns);
  return static_cast<uint64_t>(khz + 0.5);
}
#endif

}  // namespace

uint64_t HostTscKhz() {
#if defined(__x86_64__)
  static const uint64_t khz = Measure();
  return khz;
#else
  return 0;
#endif
}

}  // namespace bunker::agent
