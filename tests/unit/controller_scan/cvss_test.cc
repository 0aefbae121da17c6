#include "controller/scan/cvss.h"

#include <gtest/gtest.h>

namespace bunker::controller {
namespace {

// Vectors and scores as the specifications' examples give them.
TEST(Cvss, ScoresVersion3) {
  const std::pair<const char*, double> kExamples[] = {
      {"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8},
      {"CVSS:3.0/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 10.0},
      {"CVSS:3.0/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", 6.1},
      {"CVSS:3.0/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N", 3.1},
      {"CVSS:3.0/AV:N/AC:L/PR:L/UI:N/S:C/C:L/I:L/A:N", 6.4},
      {"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N", 7.5},
      {"CVSS:3.0/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H", 7.8},
      {"CVSS:3.0/AV:P/AC:L/PR:N/UI:N/S:U/C:N/I:H/A:N", 4.6},
      {"CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:N/I:L/A:N", 3.1},
      {"CVSS:3.1/AV:L/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", 0.0},
      {"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H/E:P/RL:O", 9.8}};
  for (const auto& [vector, score] : kExamples) {
    ASSERT_TRUE(CvssBaseScore(vector).has_value()) << vector;
    EXPECT_DOUBLE_EQ(*CvssBaseScore(vector), score) << vector;
  }
}

TEST(Cvss, ScoresVersion2) {
  EXPECT_DOUBLE_EQ(*CvssBaseScore("AV:N/AC:L/Au:N/C:N/I:N/A:C"), 7.8);
  EXPECT_DOUBLE_EQ(*CvssBaseScore("AV:N/AC:L/Au:N/C:C/I:C/A:C"), 10.0);
  EXPECT_DOUBLE_EQ(*CvssBaseScore("(AV:L/AC:H/Au:N/C:C/I:C/A:C)"), 6.2);
  EXPECT_DOUBLE_EQ(*CvssBaseScore("AV:N/AC:M/Au:N/C:N/I:P/A:N"), 4.3);
}

TEST(Cvss, LeavesOutWhatIsNone) {
  for (const char* wrong :
       {"", "x", "CVSS:3.1", "CVSS:3.1/AV:N", "CVSS:3.1/AV:N/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H",
        "CVSS:3.1/AV:Z/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", "CVSS:9/AV:N",
        "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N"}) {
    EXPECT_FALSE(CvssBaseScore(wrong).has_value()) << wrong;
  }
}

TEST(Cvss, NamesSeverities) {
  EXPECT_EQ(SeverityOfScore(9.0), "critical");
  EXPECT_EQ(SeverityOfScore(8.9), "high");
  EXPECT_EQ(SeverityOfScore(6.9), "medium");
  EXPECT_EQ(SeverityOfScore(0.1), "low");
  EXPECT_EQ(SeverityOfScore(0), "none");
  EXPECT_EQ(SeverityOfWord("MODERATE"), "medium");
  EXPECT_EQ(SeverityOfWord("unimportant"), "low");
  EXPECT_EQ(SeverityOfWord("not yet assigned"), "unknown");
  EXPECT_EQ(SeverityOfWord(""), "unknown");
}

}  // namespace
}  // namespace bunker::controller
