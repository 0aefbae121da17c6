#include "common/loop/worker_pool.h"

#include <atomic>
#include <future>

#include "common/base/reason.h"
#include "gtest/gtest.h"

namespace bunker {
namespace {

TEST(WorkerPool, RunsEverythingOnce) {
  std::atomic<int> ran{0};
  {
    WorkerPool pool("test", 3, 1000);
    std::vector<std::future<void>> done;
    for (int i = 0; i < 500; ++i) {
      auto promise = std::make_shared<std::promise<void>>();
      done.push_back(promise->get_future());
      ASSERT_TRUE(pool.Submit([&ran, promise](CancelToken&) {
        ++ran;
        promise->set_value();
      }).ok());
    }
    for (auto& one : done) one.wait();
  }
  EXPECT_EQ(ran.load(), 500);
}

TEST(WorkerPool, AFullQueueRefuses) {
  std::promise<void> started;
  std::promise<void> go;
  std::shared_future<void> gate = go.get_future().share();
  WorkerPool pool("test", 1, 1);
  ASSERT_TRUE(pool.Submit([&](CancelToken&) {
    started.set_value();
    gate.wait();
  }).ok());
  started.get_future().wait();
  ASSERT_TRUE(pool.Submit([](CancelToken&) {}).ok());
  const auto refused = pool.Submit([](CancelToken&) { FAIL(); });
  EXPECT_EQ(ReasonOf(refused.status()), "UNAVAILABLE");
  go.set_value();
}

TEST(WorkerPool, ShutdownCancelsWhatRunsAndWhatWaits) {
  std::promise<void> started;
  std::atomic<int> cancelled{0};
  WorkerPool pool("test", 1, 10);
  ASSERT_TRUE(pool.Submit([&](CancelToken& token) {
    std::promise<void> stop;
    token.SetCallback([&] { stop.set_value(); });
    started.set_value();
    stop.get_future().wait();
    token.ClearCallback();
    ++cancelled;
  }).ok());
  ASSERT_TRUE(pool.Submit([&](CancelToken& token) {
    if (token.cancelled()) ++cancelled;
  }).ok());
  started.get_future().wait();
  pool.Shutdown();
  EXPECT_EQ(cancelled.load(), 2);
  EXPECT_EQ(ReasonOf(pool.Submit([](CancelToken&) {}).status()), "UNAVAILABLE");
}

}  // namespace
}  // namespace bunker
