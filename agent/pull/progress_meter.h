// Sums the progress of layers that are fetched in parallel and reports it now and then.
// Thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/clock.h"
#include "agent/pull/pull_types.h"
#include "common/base/mutex.h"

namespace bunker::agent {

class ProgressMeter {
 public:
  ProgressMeter(size_t parts, uint64_t total, const PullProgress& report)
      : total_(total), report_(report), done_(parts) {}

  // Part `index` has `done` bytes now. A restart may lower it.
  void Set(size_t index, uint64_t done) {
    MutexLock lock(mutex_);
    sum_ += done - done_[index];  // unsigned on purpose: the difference may be negative
    done_[index] = done;
    const absl::Time now = absl::Now();
    if (sum_ < total_ && now - last_ < kPeriod) return;
    last_ = now;
    if (report_) report_(sum_, total_);
  }

 private:
  static constexpr absl::Duration kPeriod = absl::Milliseconds(100);
  const uint64_t total_;
  const PullProgress& report_;
  Mutex mutex_;
  std::vector<uint64_t> done_ ABSL_GUARDED_BY(mutex_);
  uint64_t sum_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time last_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace bunker::agent
