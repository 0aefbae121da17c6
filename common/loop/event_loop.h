// One thread that owns state: tasks posted from anywhere, timers and file descriptors, over
// epoll(7) and eventfd(2).
//
// Whoever calls Run() becomes the loop's thread. Post(), Stop(), Now() and OnLoop() are
// thread-safe; everything else must be called on the loop, or before Run().
// Nothing that runs on the loop may block.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/mutex.h"
#include "common/base/unique_fd.h"

namespace bunker {

// What code that only needs tasks, timers and the time takes; VirtualLoop is the other one.
class Loop {
 public:
  using Task = absl::AnyInvocable<void()>;
  using TimerId = uint64_t;  // never 0, never reused

  virtual ~Loop() = default;

  // Runs `task` on the loop, in the order of posting. Thread-safe. A task posted after the loop
  // ended is destroyed with the loop, not run.
  virtual void Post(Task task) = 0;

  // Runs `task` once, `delay` from now (not positive: on the next round). On the loop only.
  virtual TimerId AddTimer(absl::Duration delay, Task task) = 0;

  // The task does not run after this returns. An id that has fired or 0 is fine.
  virtual void CancelTimer(TimerId id) = 0;

  // The wall clock. Timers run on the monotonic one. Thread-safe.
  virtual absl::Time Now() const = 0;

  // Whether the caller is on the loop's thread (true before Run() for the thread that set it up).
  virtual bool OnLoop() const = 0;
};

class EventLoop final : public Loop {
 public:
  // Bits of a watch's interest and of what is ready. kError (also: hang-up) is always reported.
  enum : uint32_t { kReadable = 1, kWritable = 2, kError = 4 };
  using FdCallback = std::function<void(uint32_t ready)>;

  // Fails where the process is out of descriptors.
  static absl::StatusOr<std::unique_ptr<EventLoop>> Create();
  ~EventLoop() override;

  // Serves until Stop(). One call in the loop's life.
  void Run();

  // Ends Run() after the task that runs now. Thread-safe, repeatable, async-signal-unsafe.
  void Stop();

  void Post(Task task) override;
  TimerId AddTimer(absl::Duration delay, Task task) override;
  void CancelTimer(TimerId id) override;
  absl::Time Now() const override { return absl::Now(); }
  bool OnLoop() const override;

  // Level-triggered. The loop doesn't own `fd`: unwatch it before closing it. Watching it again
  // replaces interest and callback. The callback may unwatch anything, itself included.
  absl::Status WatchFd(int fd, uint32_t interest, FdCallback callback);
  void UnwatchFd(int fd);

  // Tasks posted and not yet run: a load figure. Thread-safe.
  size_t pending_tasks() const { return pending_.load(std::memory_order_relaxed); }

 private:
  EventLoop(UniqueFd epoll, UniqueFd wake);

  void Wake();
  int WaitMillis() const;
  void RunTasks();
  void RunTimers();
  void Dispatch(int timeout_ms);

  // Constant after construction.
  const UniqueFd epoll_;
  const UniqueFd wake_;

  Mutex mutex_;
  std::vector<Task> inbox_ ABSL_GUARDED_BY(mutex_);
  bool wake_sent_ ABSL_GUARDED_BY(mutex_) = false;

  std::atomic<bool> stop_{false};
  std::atomic<size_t> pending_{0};
  std::atomic<std::thread::id> thread_;

  // Owned by the loop's thread.
  TimerId next_timer_ = 1;
  std::map<std::pair<int64_t, TimerId>, Task> timers_;  // by monotonic due time in ns
  std::unordered_map<TimerId, int64_t> timer_due_;
  std::unordered_map<int, std::shared_ptr<FdCallback>> watches_;
};

}  // namespace bunker
