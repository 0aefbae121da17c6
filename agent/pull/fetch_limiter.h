// How many fetches run at once, in all and per registry, whose turn it is, and which registry is
// left alone for now.
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
    Slot(FetchLimiter* limiter, std::string host, std::string owner)
        : limiter_(limiter), host_(std::move(host)), owner_(std::move(owner)) {}
    ~Slot() { limiter_->Release(host_, owner_); }
    Slot(const Slot&) = delete;
    Slot& operator=(const Slot&) = delete;

   private:
    FetchLimiter* const limiter_;
    const std::string host_;
    const std::string owner_;
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

  // Waits for a slot; CANCELLED where `stop` says so first. Of those who wait and could have one,
  // the owner with the fewest slots comes first, so that one with many layers under way does not
  // keep others from theirs; among equals who came first.
  absl::StatusOr<std::unique_ptr<Slot>> Acquire(const std::string& host, const std::string& owner,
                                                const StopFn& stop) {
    MutexLock lock(mutex_);
    const uint64_t ticket = next_ticket_++;
    waiting_[ticket] = {host, owner};
    while (NextTicket() != ticket) {
      if (stop && stop()) {
        waiting_.erase(ticket);
        freed_.notify_all();  // it may have been this one's turn
        return ReasonError(absl::StatusCode::kCancelled, "CANCELLED",
                           "the pull was cancelled because its result is no longer wanted");
      }
      freed_.wait_for(lock.native(), std::chrono::milliseconds(100));
    }
    waiting_.erase(ticket);
    ++total_;
    ++used_[host];
    ++held_[owner];
    freed_.notify_all();  // there may be room for the next one, too
    return std::make_unique<Slot>(this, host, owner);
  }

 private:
  using Clock = std::chrono::steady_clock;
  struct Waiter {
    std::string host;
    std::string owner;
  };

  static uint32_t CountOf(const std::map<std::string, uint32_t>& counts, const std::string& key) {
    const auto it = counts.find(key);
    return it == counts.end() ? 0 : it->second;
  }
  bool IsPaused(const std::string& host) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto it = paused_.find(host);
    return it != paused_.end() && Clock::now() < it->second;
  }

  // Whose turn it is; 0: nobody's.
  uint64_t NextTicket() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    uint64_t best = 0;
    uint32_t least = 0;
    if (total_ >= in_all_) return 0;
    for (const auto& [ticket, waiter] : waiting_) {
      if (CountOf(used_, waiter.host) >= per_registry_ || IsPaused(waiter.host)) continue;
      const uint32_t held = CountOf(held_, waiter.owner);
      if (best != 0 && held >= least) continue;
      best = ticket;
      least = held;
    }
    return best;
  }

  void Release(const std::string& host, const std::string& owner) {
    MutexLock lock(mutex_);
    --total_;
    if (--used_[host] == 0) used_.erase(host);
    if (--held_[owner] == 0) held_.erase(owner);
    freed_.notify_all();
  }

  const uint32_t per_registry_;
  const uint32_t in_all_;
  Mutex mutex_;
  CondVar freed_;
  uint64_t next_ticket_ ABSL_GUARDED_BY(mutex_) = 1;
  std::map<uint64_t, Waiter> waiting_ ABSL_GUARDED_BY(mutex_);
  uint32_t total_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, uint32_t> used_ ABSL_GUARDED_BY(mutex_);  // by host
  std::map<std::string, uint32_t> held_ ABSL_GUARDED_BY(mutex_);  // by owner
  std::map<std::string, Clock::time_point> paused_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bunker::agent
