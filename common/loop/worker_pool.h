// A fixed number of threads for blocking work, behind a bounded queue.
//
// Thread-safe. The destructor cancels what runs, drops what waits, and joins.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/cancel.h"
#include "common/base/mutex.h"

namespace bunker {

class WorkerPool {
 public:
  // Must return soon after the token is cancelled. It reports its result by itself, usually with
  // Loop::Post; it also runs where it was cancelled before its start, so that it always reports.
  using Job = absl::AnyInvocable<void(CancelToken&)>;

  // `name` (≤ 15 characters) names the threads. At most `max_queued` jobs wait.
  WorkerPool(std::string name, size_t threads, size_t max_queued);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // kResourceExhausted with UNAVAILABLE where the queue is full or the pool is shutting down: the
  // job is then destroyed without running. The token cancels the job, waiting or running.
  absl::StatusOr<std::shared_ptr<CancelToken>> Submit(Job job);

  // Cancels all, refuses new jobs, returns when the last job has ended. Repeatable. Jobs that
  // still waited are run with a cancelled token.
  void Shutdown();

  size_t queued() const;
  size_t running() const;

 private:
  struct Entry {
    Job job;
    std::shared_ptr<CancelToken> token;
  };

  void Work();

  const std::string name_;
  const size_t max_queued_;

  mutable Mutex mutex_;
  CondVar wake_;
  std::deque<Entry> queue_ ABSL_GUARDED_BY(mutex_);
  std::set<std::shared_ptr<CancelToken>> running_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;

  Mutex join_mutex_;
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(join_mutex_);
};

}  // namespace bunker
