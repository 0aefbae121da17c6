#include "controller/model/account.h"
#include "controller/model/bunker.h"
#include "controller/model/cache_entry.h"
#include "gtest/gtest.h"

namespace bunker::controller {
namespace {

// One row per state: which states it may go to, by first letters in the enum's order.
TEST(Transitions, Bunker) {
  const BunkerStatus all[] = {BunkerStatus::kPending,  BunkerStatus::kProvisioning,
                              BunkerStatus::kRunning,  BunkerStatus::kPaused,
                              BunkerStatus::kStopping, BunkerStatus::kStopped,
                              BunkerStatus::kFailed};
  const char* const kTable[] = {
      "11...11",  // pending: also straight to an end
      ".11.111",  // provisioning
      "..11111",  // running
      "..11111",  // paused
      "....111",  // stopping
      "....111",  // stopped: to be ended, where it is not final
      "....1.1",  // failed: the same
  };
  for (size_t from = 0; from < 7; ++from) {
    for (size_t to = 0; to < 7; ++to) {
      EXPECT_EQ(CanAdvance(all[from], all[to]), kTable[from][to] == '1')
          << NameOf(all[from]) << " -> " << NameOf(all[to]);
    }
  }
}

TEST(Transitions, CacheEntry) {
  const CacheStatus all[] = {CacheStatus::kPending, CacheStatus::kBuilding, CacheStatus::kReady,
                             CacheStatus::kFailed, CacheStatus::kEvicted};
  const char* const kTable[] = {
      "11111",  // pending
      "11111",  // building
      "11111",  // ready
      "11111",  // failed
      "1...1",  // evicted: only a new attempt brings it back
  };
  for (size_t from = 0; from < 5; ++from) {
    for (size_t to = 0; to < 5; ++to) {
      EXPECT_EQ(CanAdvance(all[from], all[to]), kTable[from][to] == '1')
          << NameOf(all[from]) << " -> " << NameOf(all[to]);
    }
  }
}

TEST(Transitions, AnIllegalOneDies) {
  Bunker bunker;
  bunker.status = BunkerStatus::kRunning;
  EXPECT_DEATH(Advance(bunker, BunkerStatus::kProvisioning, absl::UnixEpoch()), "CanAdvance");
  Terminate(bunker, BunkerStatus::kStopped, "DELETED", absl::UnixEpoch());
  EXPECT_DEATH(Advance(bunker, BunkerStatus::kStopped, absl::UnixEpoch()), "live");
}

TEST(EnumNames, RoundTrip) {
  for (const auto& row : EnumNames(BunkerStatus{})) {
    EXPECT_EQ(ParseEnum<BunkerStatus>(NameOf(row.value)), row.value);
  }
  for (const auto& row : EnumNames(Role{})) EXPECT_EQ(ParseEnum<Role>(row.name), row.value);
  EXPECT_EQ(ParseEnum<BunkerStatus>("Running"), std::nullopt);
  EXPECT_EQ(ParseEnum<BunkerStatus>(""), std::nullopt);
}

}  // namespace
}  // namespace bunker::controller
