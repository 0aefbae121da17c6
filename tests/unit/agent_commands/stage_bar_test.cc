#include "agent/commands/stage_bar.h"

#include <gtest/gtest.h>

namespace bunker::agent {
namespace {

constexpr uint64_t kMib = 1 << 20;

TEST(StageBar, ShowsShareBytesAndRate) {
  EXPECT_EQ(FormatStage("baking", 30 * kMib, 60 * kMib, absl::Seconds(3)),
            "baking     [############............]  50 %  30.0 of 60.0 MiB  10.0 MiB/s");
}

TEST(StageBar, NeitherOverflowsNorDividesByNothing) {
  EXPECT_EQ(FormatStage("resolving", 0, 0, absl::Seconds(3)), "resolving ");
  EXPECT_EQ(FormatStage("pulling", 3 * kMib, kMib, absl::ZeroDuration()),
            "pulling    [########################] 100 %  1.0 of 1.0 MiB");
}

}  // namespace
}  // namespace bunker::agent
