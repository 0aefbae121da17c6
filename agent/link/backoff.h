// How long to wait before the next attempt: doubling, with full jitter, so that a fleet that lost
// its controller doesn't come back in step.
//
// Not thread-safe.
#pragma once

#include <algorithm>

#include "absl/time/time.h"
#include "common/base/rng.h"

namespace bunker::agent {

class Backoff {
 public:
  struct Options {
    absl::Duration first = absl::Milliseconds(100);
    absl::Duration longest = absl::Seconds(15);
  };

  explicit Backoff(Options options) : options_(options), ceiling_(options.first) {}

  // Uniform in (0, ceiling]; the ceiling doubles with each call, up to `longest`.
  absl::Duration Next(Rng& rng) {
    const int64_t micros = absl::ToInt64Microseconds(ceiling_);
    ceiling_ = std::min(2 * ceiling_, options_.longest);
    return absl::Microseconds(1 + static_cast<int64_t>(rng.Below(static_cast<uint64_t>(micros))));
  }

  void Reset() { ceiling_ = options_.first; }

 private:
  const Options options_;
  absl::Duration ceiling_;
};

}  // namespace bunker::agent
