// How many fetches run at once, in all and per registry, and which registry is left alone for now.
// Thread-safe.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/pull/backoff.h"
#include "common/base/mutex.h"
#include "common/base/reason.h"

namespace bunker::agent {

class FetchLimiter {
 public:
  FetchLimiter(uint32_t per_registry, uint32_t in_all)
      : per_registry_(per_registry), in_all_(in_all) {}

  // Released by its destructor. Must not outlive the limiter.
  class Slot {
   public:
    Slot(FetchLimiter* limiter, std::string host) : limiter_(limiter), host_(std::move(host)) {}
    ~Slot() { limiter_->Release(host_); }
    Slot(const Slot&) = delete;
    Slot& operator=(const Slot&) = delete;

   private:
    FetchLimiter* const limiter_;
    const std::string host_;
  };

  // No new slot of this host for that long: it asked to be left alone, and what one fetch was told
  // holds for all of them. A later call may lengthen the pause, none shortens it.
  void Pause(const std::string& host, absl::Duration delay) {
    const auto until = Clock::now() + absl::ToChronoMilliseconds(delay);
    MutexLock lock(mutex_);
    std::erase_if(paused_, [](const auto& entry) { return entry.second <= Clock::now(); });
    Clock::time_point& end = paused_[host];
    end = std::max(end, until);
  }

  // Waits for a slot; CANCELLED where `stop` says so first.
  absl::StatusOr<std::unique_ptr<Slot>> Acquire(const std::string& host, const StopFn& stop) {
    MutexLock lock(mutex_);
    while (total_ >= in_all_ || UsedBy(host) >= per_registry_ || IsPaused(host)) {
      if (stop && stop()) {
        return ReasonError(absl::StatusCode::kCancelled, "CANCELLED",
                           "the pull was cancelled because its result is no longer wanted");
      }
      freed_.wait_for(lock.native(), std::chrono::milliseconds(100));
    }
    ++total_;
    ++used_[host];
    return std::make_unique<Slot>(this, host);
  }

 private:
  using Clock = std::chrono::steady_clock;

  uint32_t UsedBy(const std::string& host) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto it = used_.find(host);
    return it == used_.end() ? 0 : it->second;
  }
  bool IsPaused(const std::string& host) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto it = paused_.find(host);
    return it != paused_.end() && Clock::now() < it->second;
  }

  void Release(const std::string& host) {
    MutexLock lock(mutex_);
    --total_;
    if (--used_[host] == 0) used_.erase(host);
    freed_.notify_all();
  }

  const uint32_t per_registry_;
  const uint32_t in_all_;
  Mutex mutex_;
  CondVar freed_;
  uint32_t total_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, uint32_t> used_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Clock::time_point> paused_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bunker::agent
