// Asks a blocking piece of work to end early. The owner calls Cancel() once; the worker polls
// cancelled() between bounded steps, or registers a callback that unblocks it (kill a child,
// shut a socket down).
//
// Thread-safe. Shared between owner and worker through std::shared_ptr.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "common/base/reason.h"

namespace bunker {

class CancelToken {
 public:
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

  // OK, or kCancelled with the reason CANCELLED.
  absl::Status Check() const {
    if (!cancelled()) return absl::OkStatus();
    return ReasonError(absl::StatusCode::kCancelled, "CANCELLED",
                       "the work was cancelled because its result is no longer wanted");
  }

  void Cancel() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (cancelled_.exchange(true, std::memory_order_acq_rel)) return;
    if (callback_) callback_();  // under the lock, so that ClearCallback() is a barrier
  }

  // `callback` runs at most once, on the cancelling thread (at once where already cancelled). It
  // must be short and must not call back into the token. One callback at a time.
  void SetCallback(std::function<void()> callback) {
    std::lock_guard<std::mutex> lock(mutex_);
    callback_ = std::move(callback);
    if (callback_ && cancelled()) callback_();
  }

  // After this returns the callback does not run any more.
  void ClearCallback() {
    std::lock_guard<std::mutex> lock(mutex_);
    callback_ = nullptr;
  }

 private:
  std::atomic<bool> cancelled_{false};
  std::mutex mutex_;
  std::function<void()> callback_;
};

}  // namespace bunker
