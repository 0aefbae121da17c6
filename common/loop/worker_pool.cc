#include "common/loop/worker_pool.h"

#include <pthread.h>

#include <utility>

#include "common/base/reason.h"

namespace bunker {

WorkerPool::WorkerPool(std::string name, size_t threads, size_t max_queued)
    : name_(std::move(name)), max_queued_(max_queued) {
  MutexLock lock(join_mutex_);
  for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
}

WorkerPool::~WorkerPool() { Shutdown(); }

absl::StatusOr<std::shared_ptr<CancelToken>> WorkerPool::Submit(Job job) {
  auto token = std::make_shared<CancelToken>();
  {
    MutexLock lock(mutex_);
    if (closed_) {
      return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                         "the pool " + name_ + " is shutting down");
    }
    if (queue_.size() >= max_queued_) {
      return ReasonError(absl::StatusCode::kResourceExhausted, "UNAVAILABLE",
                         "the pool " + name_ + " has " + std::to_string(max_queued_) +
                             " jobs waiting: try again later");
    }
    queue_.push_back({std::move(job), token});
  }
  wake_.notify_one();
  return token;
}

void WorkerPool::Work() {
  pthread_setname_np(pthread_self(), name_.substr(0, 15).c_str());
  while (true) {
    Entry entry;
    {
      MutexLock lock(mutex_);
      while (queue_.empty() && !closed_) wake_.wait(lock.native());
      if (queue_.empty()) return;
      entry = std::move(queue_.front());
      queue_.pop_front();
      running_.insert(entry.token);
    }
    entry.job(*entry.token);
    entry.job = nullptr;  // what it captured goes before it counts as ended
    MutexLock lock(mutex_);
    running_.erase(entry.token);
  }
}

void WorkerPool::Shutdown() {
  std::vector<std::shared_ptr<CancelToken>> tokens;
  {
    MutexLock lock(mutex_);
    closed_ = true;
    for (const Entry& entry : queue_) tokens.push_back(entry.token);
    tokens.insert(tokens.end(), running_.begin(), running_.end());
  }
  for (const auto& token : tokens) token->Cancel();
  wake_.notify_all();
  MutexLock lock(join_mutex_);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

size_t WorkerPool::queued() const {
  MutexLock lock(mutex_);
  return queue_.size();
}

size_t WorkerPool::running() const {
  MutexLock lock(mutex_);
  return running_.size();
}

}  // namespace bunker
