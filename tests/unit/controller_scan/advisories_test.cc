#include "controller/scan/advisories.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "controller/scan/matcher.h"
#include "nlohmann/json.hpp"
#include "tests/support/temp_dir.h"

namespace bunker::controller {
namespace {

using nlohmann::json;
using scan::v1::Package;

json Record(const std::string& id, const std::string& ecosystem, const std::string& name,
            const json& events) {
  return {{"id", id},
          {"modified", "2024-01-01T00:00:00Z"},
          {"affected",
           {{{"package", {{"ecosystem", ecosystem}, {"name", name}}},
             {"ranges", {{{"type", "ECOSYSTEM"}, {"events", events}}}}}}}};
}

scan::v1::ScanOutput Installed(const std::vector<Package>& packages) {
  scan::v1::ScanOutput output;
  output.mutable_inventory()->mutable_distribution()->set_id("debian");
  output.mutable_inventory()->mutable_distribution()->set_version_id("12");
  for (const Package& package : packages) *output.mutable_inventory()->add_packages() = package;
  return output;
}

Package Of(Package::Kind kind, const std::string& name, const std::string& version,
           const std::string& source = "", const std::string& source_version = "") {
  Package package;
  package.set_kind(kind);
  package.set_name(name);
  package.set_version(version);
  package.set_source_name(source);
  package.set_source_version(source_version);
  return package;
}

std::vector<std::string> Found(const AdvisorySet& set, const std::vector<Package>& packages) {
  scan::v1::ScanOutput output = Installed(packages);
  MatchInventory(&set, "", &output);
  std::vector<std::string> found;
  for (const auto& finding : output.findings())
    found.push_back(finding.id() + " " + finding.package().name() + " " + finding.fixed_version());
  return found;
}

using Strings = std::vector<std::string>;

TEST(Osv, RangesBeginAndEnd) {
  AdvisorySet set;
  ASSERT_TRUE(set.Add(Record("A", "Debian:12", "src",
                             {{{"introduced", "1.0"}},
                              {{"fixed", "1.5-1"}},
                              {{"introduced", "2.0"}},
                              {{"last_affected", "2.2"}}})
                          .dump())
                  .ok());
  const std::pair<const char*, bool> kVersions[] = {
      {"0.9", false}, {"1.0~rc1", false}, {"1.0", true}, {"1.5-0", true},  {"1.5-1", false},
      {"1.9", false}, {"2.0", true},      {"2.2", true}, {"2.2-1", false}, {"2.3", false}};
  for (const auto& [version, affected] : kVersions)
    EXPECT_EQ(Found(set, {Of(Package::DEB, "src", version)}).size(), affected) << version;
  EXPECT_EQ(Found(set, {Of(Package::DEB, "src", "1.0")}), (Strings{"A src 1.5-1"}));
  EXPECT_EQ(Found(set, {Of(Package::DEB, "src", "2.1")}), (Strings{"A src "}));
}

TEST(Osv, NamesSourcePackagesOfDebian) {
  AdvisorySet set;
  ASSERT_TRUE(
      set.Add(Record("A", "Debian:12", "glibc", {{{"introduced", "0"}}, {{"fixed", "2.36-9"}}})
                  .dump())
          .ok());
  EXPECT_EQ(Found(set, {Of(Package::DEB, "libc6", "2.36-8", "glibc")}),
            (Strings{"A libc6 2.36-9"}));
  EXPECT_EQ(Found(set, {Of(Package::DEB, "libc6", "2.36-8+b1", "glibc", "2.36-9")}), Strings{});
  EXPECT_EQ(Found(set, {Of(Package::DEB, "glibc", "2.36-8", "other")}), Strings{});
}

TEST(Osv, ReleasesAreTheirOwn) {
  EXPECT_TRUE(EcosystemCovers("Debian:12", "Debian:12"));
  EXPECT_TRUE(EcosystemCovers("Debian", "Debian:12"));
  EXPECT_TRUE(EcosystemCovers("Ubuntu:22.04:LTS", "Ubuntu:22.04"));
  EXPECT_FALSE(EcosystemCovers("Debian:11", "Debian:12"));
  EXPECT_FALSE(EcosystemCovers("Debian:120", "Debian:12"));
  EXPECT_FALSE(EcosystemCovers("npm", "PyPI"));
  AdvisorySet set;
  ASSERT_TRUE(set.Add(Record("A", "Debian:11", "x", {{{"introduced", "0"}}}).dump()).ok());
  scan::v1::ScanOutput output = Installed({Of(Package::DEB, "x", "1")});
  const ScanMatch match = MatchInventory(&set, "", &output);
  EXPECT_EQ(match.without_data, (std::map<std::string, uint32_t>{{"Debian:12", 1}}));
}

TEST(Osv, VersionsListsLimitsAndGit) {
  AdvisorySet set;
  json record = Record("A", "PyPI", "Left.Pad", {{{"introduced", "1"}}, {{"limit", "2"}}});
  record["affected"][0]["versions"] = {"3.1"};
  record["affected"][0]["ranges"].push_back(
      {{"type", "GIT"}, {"repo", "x"}, {"events", {{{"introduced", "0"}}}}});
  ASSERT_TRUE(set.Add(record.dump()).ok());
  EXPECT_EQ(Found(set, {Of(Package::PYPI, "left_pad", "1.5")}).size(), 1u);
  EXPECT_EQ(Found(set, {Of(Package::PYPI, "left_pad", "2.0")}).size(), 0u);
  EXPECT_EQ(Found(set, {Of(Package::PYPI, "left_pad", "3.1")}).size(), 1u);
  EXPECT_EQ(Found(set, {Of(Package::PYPI, "left_pad", "3.2")}).size(), 0u);
}

TEST(Osv, WithdrawnOnesCountForNothing) {
  AdvisorySet set;
  json record = Record("A", "npm", "x", {{{"introduced", "0"}}});
  record["withdrawn"] = "2024-02-02T00:00:00Z";
  ASSERT_TRUE(set.Add(record.dump()).ok());
  EXPECT_FALSE(set.Covers("npm"));
}

TEST(Osv, SeverityFromVectorsAndWords) {
  const auto severity = [](const json& record) {
    AdvisorySet set;
    EXPECT_TRUE(set.Add(record.dump()).ok());
    scan::v1::ScanOutput output = Installed({Of(Package::NPM, "x", "1.0.0")});
    MatchInventory(&set, "", &output);
    return output.findings_size() == 1 ? output.findings(0).severity() : "not found";
  };
  json record = Record("A", "npm", "x", {{{"introduced", "0"}}});
  EXPECT_EQ(severity(record), "unknown");
  record["database_specific"] = {{"severity", "MODERATE"}};
  EXPECT_EQ(severity(record), "medium");
  record["severity"] = {{{"type", "CVSS_V4"}, {"score", "CVSS:4.0/AV:N"}}};
  EXPECT_EQ(severity(record), "medium");  // version 4 is not computed: the database's own word
  record["severity"].push_back({{"type", "CVSS_V2"}, {"score", "AV:N/AC:L/Au:N/C:C/I:C/A:C"}});
  EXPECT_EQ(severity(record), "critical");
  record["severity"].push_back(
      {{"type", "CVSS_V3"}, {"score", "CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N"}});
  EXPECT_EQ(severity(record), "low");
  record["affected"][0]["severity"] = {{{"type", "Ubuntu"}, {"score", "high"}}};
  EXPECT_EQ(severity(record), "high");
}

TEST(Osv, IncomparableVersionsAreAProblem) {
  AdvisorySet set;
  ASSERT_TRUE(
      set.Add(Record("A", "npm", "x", {{{"introduced", "0"}}, {{"fixed", "1.0.0"}}}).dump()).ok());
  scan::v1::ScanOutput output = Installed({Of(Package::NPM, "x", "latest")});
  const ScanMatch match = MatchInventory(&set, "", &output);
  EXPECT_EQ(output.findings_size(), 0);
  EXPECT_NE(match.problem.find("x latest"), std::string::npos);
}

TEST(Osv, RefusesWhatIsNone) {
  AdvisorySet set;
  for (const char* wrong :
       {"", "[]", "{}", R"({"id":"A"})", "nul", R"({"id":"A","modified":"x","affected":{}})",
        R"({"id":"A","modified":"x","affected":[{"package":{}}]})"}) {
    EXPECT_FALSE(set.Add(wrong).ok()) << wrong;
  }
  EXPECT_EQ(set.size(), 0u);
}

TEST(Osv, FoldersHaveDigests) {
  test::TempDir dir;
  const auto write = [&](const std::string& name, const std::string& text) {
    std::ofstream(dir.path() + "/" + name) << text;
  };
  const std::string record = Record("A", "npm", "x", {{{"introduced", "0"}}}).dump();
  write("a.json", record);
  write("README", "no advisory");
  const auto first = LoadAdvisories(dir.path());
  ASSERT_TRUE(first.ok());
  EXPECT_EQ((*first)->size(), 1u);
  EXPECT_EQ((*first)->problem, "");
  const auto stamp = FolderStamp(dir.path());
  write("b.json", record);
  EXPECT_NE(*FolderStamp(dir.path()), *stamp);
  write("broken.json", "{");
  const auto second = LoadAdvisories(dir.path());
  ASSERT_TRUE(second.ok());
  EXPECT_NE((*second)->digest, (*first)->digest);
  EXPECT_NE((*second)->problem.find("broken.json"), std::string::npos);
  EXPECT_FALSE(LoadAdvisories(dir.path() + "/none").ok());
}

TEST(Match, WithoutAdvisoriesOrDecidedElsewhere) {
  scan::v1::ScanOutput output =
      Installed({Of(Package::DEB, "x", "1"), Of(Package::NPM, "y", "1.0.0")});
  EXPECT_EQ(MatchInventory(nullptr, "none are there", &output).problem, "none are there");
  output.set_decided(true);
  output.set_scanner("debsecan");
  output.add_findings()->set_id("CVE-1");
  output.mutable_findings(0)->set_severity("high");
  const ScanMatch match = MatchInventory(nullptr, "none are there", &output);
  EXPECT_EQ(match.problem, "");
  EXPECT_EQ(match.counts, (std::map<std::string, uint32_t>{{"high", 1}}));
  EXPECT_EQ(match.without_data, (std::map<std::string, uint32_t>{{"npm", 1}}));
}

}  // namespace
}  // namespace bunker::controller
