// The way from gRPC's threads to the agent's loop, that can be shut: a stream's last callbacks may
// come when the loop is long gone.
//
// Thread-safe.
#pragma once

#include <utility>

#include "common/base/mutex.h"
#include "common/loop/event_loop.h"

namespace bunker::agent {

class LoopGate {
 public:
  // `loop` must outlive the gate's being open.
  explicit LoopGate(Loop& loop) : loop_(&loop) {}

  // Posts to the loop; drops `task` where the gate is shut.
  void Post(Loop::Task task) {
    MutexLock lock(mutex_);
    if (loop_ != nullptr) loop_->Post(std::move(task));
  }

  // Nothing is posted any more when this returns.
  void Shut() {
    MutexLock lock(mutex_);
    loop_ = nullptr;
  }

 private:
  Mutex mutex_;
  Loop* loop_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bunker::agent
