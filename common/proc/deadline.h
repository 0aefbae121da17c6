// Time that no change of the wall clock moves. Values; thread-safe as values are.
#pragma once

#include <time.h>

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"

namespace bunker {

// Time since some fixed point; only differences mean anything.
inline absl::Duration MonotonicTime() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::DurationFromTimespec(now);
}

// A point on the monotonic clock, to bound waits with.
class Deadline {
 public:
  explicit Deadline(absl::Duration from_now) : at_(MonotonicTime() + from_now) {}

  bool Expired() const { return MonotonicTime() >= at_; }

  // Never negative.
  absl::Duration Remaining() const { return std::max(at_ - MonotonicTime(), absl::ZeroDuration()); }

  // For poll(2): rounded up, so that the last fraction of a millisecond is slept and not spun,
  // and at most `cap_ms`.
  int PollTimeoutMs(int cap_ms = 60'000) const {
    const absl::Duration rounded = absl::Ceil(Remaining(), absl::Milliseconds(1));
    return static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(rounded), cap_ms));
  }

 private:
  absl::Duration at_;
};

}  // namespace bunker
