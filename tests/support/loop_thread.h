// An event loop that serves on a thread of its own, for tests of what lives on a loop.
#pragma once

#include <future>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>

#include "common/base/log.h"
#include "common/loop/event_loop.h"

namespace bunker::test {

class LoopThread {
 public:
  LoopThread() {
    auto loop = EventLoop::Create();
    BUNKER_CHECK(loop.ok());
    loop_ = *std::move(loop);
    thread_ = std::thread([this] { loop_->Run(); });
  }
  ~LoopThread() { Stop(); }

  EventLoop& loop() { return *loop_; }

  // Runs `task` on the loop and returns what it returns.
  template <typename Task>
  auto Run(Task task) {
    using Result = std::invoke_result_t<Task>;
    std::promise<Result> promise;
    auto result = promise.get_future();
    loop_->Post([&] {
      if constexpr (std::is_void_v<Result>) {
        task();
        promise.set_value();
      } else {
        promise.set_value(task());
      }
    });
    return result.get();
  }

  // Repeatable. Nothing runs on the loop any more.
  void Stop() {
    loop_->Stop();
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::unique_ptr<EventLoop> loop_;
  std::thread thread_;
};

}  // namespace bunker::test
