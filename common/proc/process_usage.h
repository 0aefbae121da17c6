// What a process has taken, from /proc.
// Thread-safe: a free function without state. Blocking for microseconds.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

namespace bunker {

struct ProcessUsage {
  double cpu_s = 0;  // of all its threads, those that have ended too
  uint64_t rss_bytes = 0;
};

// kNotFound where there is no such process.
absl::StatusOr<ProcessUsage> UsageOf(int pid);

}  // namespace bunker
