#include "agent/scan/findings_reader.h"

#include <gtest/gtest.h>

namespace bunker::agent {
namespace {

TEST(Trivy, IsRead) {
  const auto findings = ReadTrivy(R"({"SchemaVersion":2,"Results":[{"Target":"x","Type":"debian",
    "Vulnerabilities":[{"VulnerabilityID":"CVE-1","PkgName":"libc6","InstalledVersion":"2.36-8",
    "FixedVersion":"2.36-9","Severity":"HIGH","Title":"t",
    "PkgIdentifier":{"PURL":"pkg:deb/debian/libc6@2"}}]},
    {"Target":"y"}]})");
  ASSERT_TRUE(findings.ok()) << findings.status();
  ASSERT_EQ(findings->size(), 1u);
  EXPECT_EQ((*findings)[0].severity(), "high");
  EXPECT_EQ((*findings)[0].package().kind(), scan::v1::Package::DEB);
  EXPECT_EQ((*findings)[0].fixed_version(), "2.36-9");
  EXPECT_TRUE(ReadTrivy(R"({"SchemaVersion":2})").ok());
  for (const char* wrong : {"", "[]", "{}", R"({"SchemaVersion":2,"Results":{}})",
                            R"({"SchemaVersion":2,"Results":[{"Vulnerabilities":[{}]}]})"}) {
    EXPECT_FALSE(ReadTrivy(wrong).ok()) << wrong;
  }
}

TEST(Grype, IsRead) {
  const auto findings =
      ReadGrype(R"({"matches":[{"vulnerability":{"id":"GHSA-1","severity":"Negligible",
    "fix":{"versions":["2.0.0"],"state":"fixed"}},
    "artifact":{"name":"x","version":"1.0.0","type":"npm",
    "purl":"pkg:npm/x@1.0.0"}}]})");
  ASSERT_TRUE(findings.ok()) << findings.status();
  EXPECT_EQ((*findings)[0].severity(), "low");
  EXPECT_EQ((*findings)[0].package().kind(), scan::v1::Package::NPM);
  EXPECT_EQ((*findings)[0].fixed_version(), "2.0.0");
  for (const char* wrong : {"", "{}", R"({"matches":1})", R"({"matches":[1]})"})
    EXPECT_FALSE(ReadGrype(wrong).ok()) << wrong;
}

TEST(Debsecan, IsRead) {
  scan::v1::Inventory inventory;
  auto* package = inventory.add_packages();
  package->set_kind(scan::v1::Package::DEB);
  package->set_name("libc6");
  package->set_version("1");
  const auto findings = ReadDebsecan("CVE-1 libc6 (fixed, high urgency)\nCVE-2 libc6\n", inventory);
  ASSERT_TRUE(findings.ok()) << findings.status();
  ASSERT_EQ(findings->size(), 2u);
  EXPECT_EQ((*findings)[0].severity(), "high");
  EXPECT_EQ((*findings)[1].severity(), "unknown");
  EXPECT_EQ((*findings)[1].package().version(), "1");
  EXPECT_TRUE(ReadDebsecan("", inventory)->empty());
  EXPECT_FALSE(ReadDebsecan("error\n", inventory).ok());
  EXPECT_FALSE(ReadDebsecan("CVE-1 other\n", inventory).ok());
}

}  // namespace
}  // namespace bunker::agent
