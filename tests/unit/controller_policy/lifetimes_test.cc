#include "controller/policy/lifetimes.h"

#include "controller/policy/liveness.h"
#include "gtest/gtest.h"

namespace bunker::controller {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1'000'000);

TEST(Lifetimes, ExpiryTable) {
  struct {
    const char* name;
    BunkerStatus status;
    int64_t age_s, idle_s;
    bool busy;
    uint64_t idle_timeout_s;
    const char* why;
  } const kCases[] = {
      {"young", BunkerStatus::kRunning, 10, 10, false, 600, ""},
      {"idle", BunkerStatus::kRunning, 1000, 600, false, 600, "IDLE_TIMEOUT"},
      {"almost idle", BunkerStatus::kRunning, 1000, 599, false, 600, ""},
      {"busy", BunkerStatus::kRunning, 3000, 3000, true, 600, ""},
      {"never idle", BunkerStatus::kRunning, 3000, 3000, false, 0, ""},
      {"old", BunkerStatus::kRunning, 3600, 1, true, 600, "MAX_LIFETIME"},
      {"booting is not idling", BunkerStatus::kProvisioning, 3000, 3000, false, 600, ""},
      {"old while booting", BunkerStatus::kProvisioning, 3601, 3601, false, 600, "MAX_LIFETIME"},
      {"old while paused", BunkerStatus::kPaused, 3601, 1, false, 600, "MAX_LIFETIME"},
  };
  for (const auto& one : kCases) {
    Bunker bunker;
    bunker.status = one.status;
    bunker.created_at = kStart;
    bunker.started_at = kStart;
    bunker.expires_at = kStart + absl::Hours(1);
    bunker.idle_timeout_s = one.idle_timeout_s;
    const absl::Time now = kStart + absl::Seconds(one.age_s);
    EXPECT_EQ(ExpiryOf(bunker, now - absl::Seconds(one.idle_s), one.busy, now), one.why)
        << one.name;
  }
}

TEST(Lifetimes, DefaultsOfTheModes) {
  EXPECT_EQ(DefaultsOf(LifecycleMode::kEphemeral).max_lifetime_s, 3600u);
  EXPECT_EQ(DefaultsOf(LifecycleMode::kEphemeral).idle_timeout_s, 600u);
  EXPECT_EQ(DefaultsOf(LifecycleMode::kSession).max_lifetime_s, 86'400u);
  EXPECT_EQ(DefaultsOf(LifecycleMode::kSession).idle_timeout_s, 3600u);
  EXPECT_EQ(DefaultsOf(LifecycleMode::kPersistent).max_lifetime_s, 0u);
}

TEST(Lifetimes, BackOffDoublesUpToItsBound) {
  const auto wait = [](uint32_t failures) {
    return absl::ToInt64Seconds(BackOff(failures, absl::Seconds(10), absl::Minutes(5)));
  };
  EXPECT_EQ(wait(1), 10);
  EXPECT_EQ(wait(2), 20);
  EXPECT_EQ(wait(5), 160);
  EXPECT_EQ(wait(6), 300);
  EXPECT_EQ(wait(4'000'000'000), 300);
}

TEST(Liveness, SilenceCountsFromTheControllersStart) {
  const absl::Time now = kStart + absl::Seconds(10);
  EXPECT_EQ(SilenceOf(kStart - absl::Hours(1), kStart, now), absl::Seconds(10));
  EXPECT_EQ(SilenceOf(kStart + absl::Seconds(8), kStart, now), absl::Seconds(2));
  EXPECT_EQ(SilenceOf(now + absl::Seconds(5), kStart, now), absl::ZeroDuration());
  const auto of = [](int64_t silence_s) {
    return LivenessOf(absl::Seconds(silence_s), absl::Seconds(30), absl::Seconds(300));
  };
  EXPECT_EQ(of(29), Liveness::kAlive);
  EXPECT_EQ(of(30), Liveness::kOffline);
  EXPECT_EQ(of(299), Liveness::kOffline);
  EXPECT_EQ(of(300), Liveness::kLost);
}

}  // namespace
}  // namespace bunker::controller
