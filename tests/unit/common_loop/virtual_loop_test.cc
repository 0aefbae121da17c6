#include "common/loop/virtual_loop.h"

#include <string>

#include "gtest/gtest.h"

namespace bunker {
namespace {

TEST(VirtualLoop, TimersFireAtTheirOwnTimeAndInOrder) {
  const absl::Time start = absl::FromUnixSeconds(1000);
  VirtualLoop loop(start);
  std::string log;
  loop.AddTimer(absl::Seconds(10), [&] {
    EXPECT_EQ(loop.Now(), start + absl::Seconds(10));
    log += 'b';
    loop.AddTimer(absl::Seconds(5), [&] {
      EXPECT_EQ(loop.Now(), start + absl::Seconds(15));
      log += 'c';
    });
  });
  loop.AddTimer(absl::Seconds(1), [&] { log += 'a'; });
  const auto cancelled = loop.AddTimer(absl::Seconds(2), [&] { log += 'x'; });
  loop.CancelTimer(cancelled);
  loop.Advance(absl::Seconds(14));
  EXPECT_EQ(log, "ab");
  loop.Advance(absl::Seconds(1));
  EXPECT_EQ(log, "abc");
  EXPECT_EQ(loop.Now(), start + absl::Seconds(15));
}

TEST(VirtualLoop, TasksThatPostTasksRunBeforeTimePasses) {
  VirtualLoop loop(absl::UnixEpoch());
  int depth = 0;
  std::function<void()> step = [&] {
    if (++depth < 5) loop.Post([&] { step(); });
  };
  loop.Post([&] { step(); });
  loop.RunUntilIdle();
  EXPECT_EQ(depth, 5);
}

}  // namespace
}  // namespace bunker
