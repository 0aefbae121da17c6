#include "common/version/version.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace bunker {
namespace {

// Each is older than the one after it.
void ExpectRising(VersionScheme scheme, const std::vector<std::string>& versions) {
  for (size_t i = 0; i < versions.size(); ++i) {
    for (size_t j = 0; j < versions.size(); ++j) {
      const auto order = CompareVersions(scheme, versions[i], versions[j]);
      ASSERT_TRUE(order.has_value()) << versions[i] << " and " << versions[j];
      const int wanted = i < j ? -1 : i > j ? 1 : 0;
      EXPECT_EQ((*order > 0) - (*order < 0), wanted) << versions[i] << " and " << versions[j];
    }
  }
}

void ExpectEqual(VersionScheme scheme, const std::string& a, const std::string& b) {
  EXPECT_EQ(CompareVersions(scheme, a, b), 0) << a << " and " << b;
}

TEST(Debian, Orders) {
  ExpectRising(VersionScheme::kDebian,
               {"1.0~~", "1.0~~a", "1.0~", "1.0~rc1", "1.0", "1.0-1~deb12u1", "1.0-1", "1.0-1+b1",
                "1.0-1.1", "1.0-10", "1.0a", "1.0+dfsg", "1.0.1", "1.2", "1.10", "1:0.1"});
  ExpectEqual(VersionScheme::kDebian, "1.0", "0:1.0");
  ExpectEqual(VersionScheme::kDebian, "1.0", "1.0-0");
  ExpectEqual(VersionScheme::kDebian, "1.007", "1.7");
  for (const char* wrong : {"", "a1", "1.0-", "x:1", "1 0", "1.0_1", ":1"})
    EXPECT_FALSE(CompareVersions(VersionScheme::kDebian, wrong, "1").has_value()) << wrong;
}

TEST(Rpm, Orders) {
  ExpectRising(VersionScheme::kRpm, {"1.0~rc1-1", "1.0-1", "1.0-2.el9", "1.0^git1-1", "1.0.1-1",
                                     "1.1-1", "1.10-1", "1:0.1-1"});
  ExpectEqual(VersionScheme::kRpm, "0:1.0-1", "1.0-1");
  ExpectEqual(VersionScheme::kRpm, "1.0-1", "1_0-1");
}

TEST(Pep440, Orders) {
  ExpectRising(VersionScheme::kPep440,
               {"1.0.dev1", "1.0a1.dev1", "1.0a1", "1.0a2", "1.0b1", "1.0rc1", "1.0", "1.0+abc",
                "1.0+1", "1.0.post1.dev2", "1.0.post1", "1.0.1", "1.2", "1.10", "1!0.1"});
  ExpectEqual(VersionScheme::kPep440, "1.0", "v1.0.0");
  ExpectEqual(VersionScheme::kPep440, "1.0-1", "1.0.POST1");
  ExpectEqual(VersionScheme::kPep440, "1.0c1", "1.0-preview_1");
  for (const char* wrong : {"", "x", "1.0+", "1..0", "1.0+a..b", "1.0 1"})
    EXPECT_FALSE(CompareVersions(VersionScheme::kPep440, wrong, "1").has_value()) << wrong;
}

TEST(Semver, Orders) {
  ExpectRising(VersionScheme::kSemver,
               {"1.0.0-1", "1.0.0-2", "1.0.0-10", "1.0.0-alpha", "1.0.0-alpha.1",
                "1.0.0-alpha.beta", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2.0.0"});
  ExpectEqual(VersionScheme::kSemver, "1.0.0+a", "v1.0.0+b");
  for (const char* wrong : {"", "1", "1.0", "01.0.0", "1.0.0-01", "1.0.0-", "1.0.0+", "1.0.0.0",
                            "9007199254740992.0.0"})
    EXPECT_FALSE(CompareVersions(VersionScheme::kSemver, wrong, "1.0.0").has_value()) << wrong;
}

// apk itself is not packaged for Debian: these follow from its documented rules.
TEST(Apk, Orders) {
  ExpectRising(VersionScheme::kApk,
               {"1.001",      "1.0_alpha", "1.0_alpha2", "1.0_beta", "1.0_pre1", "1.0_rc1",
                "1.0_rc1_p1", "1.0",       "1.0-r1",     "1.0-r2",   "1.0-r10",  "1.0_cvs",
                "1.0_p1",     "1.0_p1-r3", "1.0a",       "1.0b",     "1.01",     "1.0.1",
                "1.1",        "1.2",       "1.10",       "2.0"});
  ExpectEqual(VersionScheme::kApk, "1.2.3-r4", "1.2.3-r4");
  for (const char* wrong : {"", "a", "1.", "1.0_foo", "1.0-r", "1.0-1", "1.0 "})
    EXPECT_FALSE(CompareVersions(VersionScheme::kApk, wrong, "1").has_value()) << wrong;
}

TEST(Versions, AreBounded) {
  const std::string longest(kMaxVersionBytes + 1, '1');
  for (const VersionScheme scheme :
       {VersionScheme::kDebian, VersionScheme::kRpm, VersionScheme::kPep440, VersionScheme::kSemver,
        VersionScheme::kApk}) {
    EXPECT_FALSE(CompareVersions(scheme, longest, "1.0.0").has_value());
  }
}

}  // namespace
}  // namespace bunker
