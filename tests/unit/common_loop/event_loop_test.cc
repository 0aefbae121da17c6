#include "common/loop/event_loop.h"

#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace bunker {
namespace {

std::unique_ptr<EventLoop> MakeLoop() {
  auto loop = EventLoop::Create();
  EXPECT_TRUE(loop.ok()) << loop.status();
  return *std::move(loop);
}

TEST(EventLoop, RunsPostedTasksInOrderFromManyThreads) {
  auto loop = MakeLoop();
  constexpr int kThreads = 4;
  constexpr int kEach = 2000;
  std::vector<std::vector<int>> seen(kThreads);
  int total = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        loop->Post([&, t, i] {
          EXPECT_TRUE(loop->OnLoop());
          seen[static_cast<size_t>(t)].push_back(i);
          if (++total == kThreads * kEach) loop->Stop();
        });
      }
    });
  }
  loop->Run();
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<int>& one : seen) {
    ASSERT_EQ(one.size(), static_cast<size_t>(kEach));
    for (int i = 0; i < kEach; ++i) EXPECT_EQ(one[static_cast<size_t>(i)], i);
  }
  EXPECT_EQ(loop->pending_tasks(), 0u);
}

TEST(EventLoop, TimersRunByDueTimeAndCancelledOnesDoNot) {
  auto loop = MakeLoop();
  std::string order;
  const auto cancelled = loop->AddTimer(absl::Milliseconds(2), [&] { order += 'x'; });
  loop->AddTimer(absl::Milliseconds(15), [&] {
    order += 'c';
    loop->Stop();
  });
  loop->AddTimer(absl::Milliseconds(5), [&] { order += 'b'; });
  loop->AddTimer(-absl::Seconds(1), [&] {
    order += 'a';
    loop->CancelTimer(cancelled);
  });
  loop->Run();
  EXPECT_EQ(order, "abc");
}

TEST(EventLoop, ATimerThatAddsATimerDoesNotStarveTasks) {
  auto loop = MakeLoop();
  std::function<void()> again = [&] { loop->AddTimer(absl::ZeroDuration(), [&] { again(); }); };
  again();
  loop->Post([&] { loop->Post([&] { loop->Stop(); }); });
  loop->Run();
}

TEST(EventLoop, WatchesReadabilityWritabilityAndHangUp) {
  auto loop = MakeLoop();
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
  UniqueFd ours(pair[0]);
  UniqueFd peer(pair[1]);
  std::string log;
  ASSERT_TRUE(loop->WatchFd(ours.get(), EventLoop::kWritable, [&](uint32_t ready) {
    EXPECT_EQ(ready, EventLoop::kWritable);
    log += 'w';
    ASSERT_TRUE(loop->WatchFd(ours.get(), EventLoop::kReadable, [&](uint32_t now) {
      if (now & EventLoop::kReadable) {
        char byte = 0;
        if (read(ours.get(), &byte, 1) == 1) {
          log += byte;
          peer.reset();
          return;
        }
      }
      EXPECT_TRUE(now & EventLoop::kError);
      log += 'h';
      loop->UnwatchFd(ours.get());
      loop->Stop();
    }).ok());
    ASSERT_EQ(write(peer.get(), "r", 1), 1);
  }).ok());
  loop->Run();
  EXPECT_EQ(log, "wrh");
  EXPECT_FALSE(loop->WatchFd(-1, EventLoop::kReadable, [](uint32_t) {}).ok());
}

TEST(EventLoop, ACallbackMayUnwatchAnotherThatIsReady) {
  auto loop = MakeLoop();
  int a[2];
  int b[2];
  ASSERT_EQ(pipe(a), 0);
  ASSERT_EQ(pipe(b), 0);
  ASSERT_EQ(write(a[1], "1", 1), 1);
  ASSERT_EQ(write(b[1], "1", 1), 1);
  int calls = 0;
  auto callback = [&](uint32_t) {
    ++calls;
    loop->UnwatchFd(a[0]);
    loop->UnwatchFd(b[0]);
    loop->Post([&] { loop->Stop(); });
  };
  ASSERT_TRUE(loop->WatchFd(a[0], EventLoop::kReadable, callback).ok());
  ASSERT_TRUE(loop->WatchFd(b[0], EventLoop::kReadable, callback).ok());
  loop->Run();
  EXPECT_EQ(calls, 1);
  for (const int fd : {a[0], a[1], b[0], b[1]}) close(fd);
}

TEST(EventLoop, WhatWasNotRunIsDestroyedWithTheLoop) {
  auto witness = std::make_shared<int>(1);
  {
    auto loop = MakeLoop();
    loop->Post([&] { loop->Stop(); });
    loop->Post([witness] { FAIL() << "ran after Stop()"; });
    loop->Run();
    loop->Post([witness] { FAIL() << "ran after Run()"; });
  }
  EXPECT_EQ(witness.use_count(), 1);
}

}  // namespace
}  // namespace bunker
