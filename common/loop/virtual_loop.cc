#include "common/loop/virtual_loop.h"

#include <algorithm>

namespace bunker {

void VirtualLoop::Post(Task task) {
  MutexLock lock(mutex_);
  inbox_.push_back(std::move(task));
}

VirtualLoop::TimerId VirtualLoop::AddTimer(absl::Duration delay, Task task) {
  const TimerId id = next_timer_++;
  const absl::Time due = now_ + std::max(delay, absl::ZeroDuration());
  timers_.emplace(std::make_pair(due, id), std::move(task));
  timer_due_.emplace(id, due);
  return id;
}

void VirtualLoop::CancelTimer(TimerId id) {
  const auto it = timer_due_.find(id);
  if (it == timer_due_.end()) return;
  timers_.erase({it->second, id});
  timer_due_.erase(it);
}

void VirtualLoop::RunUntilIdle() {
  while (true) {
    std::vector<Task> tasks;
    {
      MutexLock lock(mutex_);
      tasks.swap(inbox_);
    }
    for (Task& task : tasks) task();
    if (!tasks.empty()) continue;
    if (timers_.empty() || timers_.begin()->first.first > now_) return;
    Task task = std::move(timers_.begin()->second);
    timer_due_.erase(timers_.begin()->first.second);
    timers_.erase(timers_.begin());
    task();
  }
}

void VirtualLoop::Advance(absl::Duration duration) {
  const absl::Time end = now_ + duration;
  RunUntilIdle();
  while (!timers_.empty() && timers_.begin()->first.first <= end) {
    now_ = std::max(now_, timers_.begin()->first.first);
    RunUntilIdle();
  }
  now_ = end;
  RunUntilIdle();
}

}  // namespace bunker
