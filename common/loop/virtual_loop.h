// The Loop interface over virtual time: a test decides when time passes.
//
// Post() is thread-safe, so that real worker threads may report to it; the rest belongs to the
// thread that drives it.
#pragma once

#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/base/mutex.h"
#include "common/loop/event_loop.h"

namespace bunker {

class VirtualLoop final : public Loop {
 public:
  explicit VirtualLoop(absl::Time start) : now_(start) {}

  void Post(Task task) override;
  TimerId AddTimer(absl::Duration delay, Task task) override;
  void CancelTimer(TimerId id) override;
  absl::Time Now() const override { return now_; }
  bool OnLoop() const override { return true; }

  // Runs what is posted and due until nothing is left to do at this moment.
  void RunUntilIdle();

  // Lets `duration` pass, running every timer at its own time.
  void Advance(absl::Duration duration);

 private:
  absl::Time now_;
  Mutex mutex_;
  std::vector<Task> inbox_ ABSL_GUARDED_BY(mutex_);
  TimerId next_timer_ = 1;
  std::map<std::pair<absl::Time, TimerId>, Task> timers_;
  std::unordered_map<TimerId, absl::Time> timer_due_;
};

}  // namespace bunker
