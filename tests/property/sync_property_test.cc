// BUNKER_SIM_SEEDS=N runs N seeds in place of 2,000; BUNKER_SIM_SEED=S runs that one alone.
#include <cstdlib>
#include <string>

#include "gtest/gtest.h"
#include "tests/property/sync_sim.h"

namespace bunker {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

TEST(SyncPropertyTest, EverySeedIsSafeAndConverges) {
  const uint64_t only = FromEnvironment("BUNKER_SIM_SEED", 0);
  const uint64_t first = only != 0 ? only : 1;
  const uint64_t last = only != 0 ? only : FromEnvironment("BUNKER_SIM_SEEDS", 2000);
  for (uint64_t seed = first; seed <= last; ++seed) {
    const auto violation = RunSyncSimulation(seed, SyncMistake::kNone);
    ASSERT_FALSE(violation.has_value())
        << *violation << "\nagain with BUNKER_SIM_SEED=" << seed;
  }
  RecordProperty("seeds", std::to_string(last - first + 1));
}

// The simulator is worth only as much as what it catches.
class SyncMistakeTest : public ::testing::TestWithParam<SyncMistake> {};

TEST_P(SyncMistakeTest, IsFound) {
  for (uint64_t seed = 1; seed <= 1000; ++seed) {
    if (const auto violation = RunSyncSimulation(seed, GetParam())) {
      std::printf("found at seed %llu: %s\n", static_cast<unsigned long long>(seed),
                  violation->c_str());
      return;
    }
  }
  FAIL() << "1,000 seeds did not notice";
}

INSTANTIATE_TEST_SUITE_P(
    All, SyncMistakeTest,
    ::testing::Values(SyncMistake::kLeavesOutRemovals, SyncMistake::kReusesVersions,
                      SyncMistake::kAcksBeforeDurable, SyncMistake::kTakesOlderSessions,
                      SyncMistake::kDeletesBeforeSynced, SyncMistake::kForgetsChangeInFlight,
                      SyncMistake::kClaimsLostRows),
    [](const auto& param_info) -> std::string {
      switch (param_info.param) {
        case SyncMistake::kNone: return "None";
        case SyncMistake::kLeavesOutRemovals: return "LeavesOutRemovals";
        case SyncMistake::kReusesVersions: return "ReusesVersions";
        case SyncMistake::kAcksBeforeDurable: return "AcksBeforeDurable";
        case SyncMistake::kTakesOlderSessions: return "TakesOlderSessions";
        case SyncMistake::kDeletesBeforeSynced: return "DeletesBeforeSynced";
        case SyncMistake::kForgetsChangeInFlight: return "ForgetsChangeInFlight";
        case SyncMistake::kClaimsLostRows: return "ClaimsLostRows";
      }
      return "Unknown";
    });

}  // namespace
}  // namespace bunker
