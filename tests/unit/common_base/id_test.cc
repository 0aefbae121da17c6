#include "common/base/id.h"

#include <gtest/gtest.h>

namespace bunker {
namespace {

TEST(Id, SortsByTimeWithinAMillisecond) {
  SeededRng rng(1);
  const absl::Time begin = absl::FromUnixMillis(1'700'000'000'000);
  std::string last;
  for (int us = 0; us < 5000; us += 1) {
    const std::string id = NewId("img_", begin + absl::Microseconds(us), rng);
    EXPECT_LT(last, id);
    last = id;
  }
}

TEST(Id, IsAUuidOfVersion7) {
  SeededRng rng(2);
  const std::string id = NewId("bnk_", absl::FromUnixMillis(0x0190'1234'5678), rng);
  EXPECT_EQ(id.substr(0, 16), "bnk_019012345678");
  EXPECT_EQ(id[16], '7');
  const std::string uuid = UuidOf(id);
  EXPECT_EQ(uuid.size(), 36u);
  EXPECT_NE(std::string("89ab").find(uuid[19]), std::string::npos);
  EXPECT_EQ(IdFromUuid("bnk_", uuid), id);
  EXPECT_EQ(IdFromUuid("bnk_", "no-uuid"), "");
}

}  // namespace
}  // namespace bunker
