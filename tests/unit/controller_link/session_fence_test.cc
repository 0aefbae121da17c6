#include "controller/link/session_fence.h"

#include "gtest/gtest.h"

namespace bunker::controller {
namespace {

using Verdict = SessionFence::Verdict;

const absl::Time kStart = absl::UnixEpoch();

TEST(SessionFenceTest, RestartsAndReconnectsPass) {
  SessionFence fence;
  for (const char* run : {"a", "a", "b", "b", "c"})
    EXPECT_EQ(fence.OnHello(run, kStart), Verdict::kAdmit) << run;
  for (int i = 0; i < 100; ++i)
    EXPECT_EQ(fence.OnHello("run" + std::to_string(i), kStart), Verdict::kAdmit);
}

TEST(SessionFenceTest, ARunThatComesBackMeansTwoAgents) {
  SessionFence fence;
  EXPECT_EQ(fence.OnHello("a", kStart), Verdict::kAdmit);
  EXPECT_EQ(fence.OnHello("b", kStart), Verdict::kAdmit);
  EXPECT_EQ(fence.OnHello("a", kStart), Verdict::kQuarantine);
  EXPECT_TRUE(fence.quarantined());
  absl::Time now = kStart;
  // As long as both try, neither gets in.
  for (int i = 0; i < 20; ++i) {
    now += absl::Seconds(15);
    EXPECT_EQ(fence.OnHello(i % 2 == 0 ? "a" : "b", now), Verdict::kQuarantined);
  }
  // b is stopped: a is let in once b was silent for a minute, and stays.
  EXPECT_EQ(fence.OnHello("a", now + absl::Seconds(59)), Verdict::kQuarantined);
  EXPECT_EQ(fence.OnHello("a", now + absl::Seconds(61)), Verdict::kAdmit);
  EXPECT_EQ(fence.OnHello("a", now + absl::Seconds(62)), Verdict::kAdmit);
  // And if b comes back, it is seen as new once, then a's return shows the two again.
  EXPECT_EQ(fence.OnHello("b", now + absl::Seconds(70)), Verdict::kAdmit);
  EXPECT_EQ(fence.OnHello("a", now + absl::Seconds(71)), Verdict::kQuarantine);
}

}  // namespace
}  // namespace bunker::controller
