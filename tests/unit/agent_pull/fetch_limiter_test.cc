#include "agent/pull/fetch_limiter.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace bunker::agent {
namespace {

const StopFn kNever = [] { return false; };

TEST(FetchLimiter, TheOwnerWithFewestSlotsComesFirst) {
  FetchLimiter limiter(/*per_registry=*/3, /*in_all=*/3);
  std::vector<std::unique_ptr<FetchLimiter::Slot>> held;
  for (int i = 0; i < 3; ++i) held.push_back(*limiter.Acquire("r", "greedy", kNever));
  std::vector<std::string> order;
  Mutex mutex;
  std::atomic<int> waiting{0};
  std::vector<std::thread> threads;
  const auto wait_for = [&](const std::string& owner) {
    threads.emplace_back([&, owner] {
      bool counted = false;
      const auto slot = limiter.Acquire("r", owner, [&] {
        if (!std::exchange(counted, true)) ++waiting;
        return false;
      });
      ASSERT_TRUE(slot.ok());
      MutexLock lock(mutex);
      order.push_back(owner);
    });
  };
  // Two more of the one who has all there is, then one of another.
  wait_for("greedy");
  while (waiting < 1) std::this_thread::yield();
  wait_for("greedy");
  while (waiting < 2) std::this_thread::yield();
  wait_for("modest");
  while (waiting < 3) std::this_thread::yield();
  held.pop_back();
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(order.size(), 3u);
  EXPECT_EQ(order[0], "modest");
}

TEST(FetchLimiter, WhoGivesUpHoldsNobodyUp) {
  FetchLimiter limiter(1, 1);
  auto held = *limiter.Acquire("r", "a", kNever);
  std::atomic<bool> stop{false};
  std::thread quitter([&] {
    EXPECT_FALSE(limiter.Acquire("r", "b", [&] { return stop.load(); }).ok());
  });
  stop = true;
  quitter.join();
  held.reset();
  EXPECT_TRUE(limiter.Acquire("r", "c", kNever).ok());
}

TEST(FetchLimiter, AFullRegistryLeavesOthersAlone) {
  FetchLimiter limiter(1, 2);
  const auto one = *limiter.Acquire("one", "a", kNever);
  EXPECT_TRUE(limiter.Acquire("two", "a", kNever).ok());
}

}  // namespace
}  // namespace bunker::agent
