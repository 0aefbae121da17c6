#include "agent/scan/text_databases.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace bunker::agent {
namespace {

using scan::v1::Inventory;

Inventory Of(PackageList& list) {
  Inventory inventory;
  list.MoveTo(&inventory);
  return inventory;
}

TEST(Dpkg, ReadsWhatIsInstalled) {
  PackageList list;
  ReadDpkgStatus(
      "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc\n"
      "Version: 2.36-9\nDescription: x\n Version: 9 is no field here\n\n"
      "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n"
      "Package: half\nStatus: install ok half-configured\nVersion: 2\nSource: src (1.9-1)\n\n"
      "package: lower\r\nstatus: install ok installed\r\nversion: 3\r\n",
      false, &list);
  const Inventory inventory = Of(list);
  ASSERT_EQ(inventory.packages_size(), 3);
  EXPECT_EQ(inventory.packages(0).name(), "half");
  EXPECT_EQ(inventory.packages(0).source_name(), "src");
  EXPECT_EQ(inventory.packages(0).source_version(), "1.9-1");
  EXPECT_EQ(inventory.packages(1).name(), "libc6");
  EXPECT_EQ(inventory.packages(1).version(), "2.36-9");
  EXPECT_EQ(inventory.packages(1).arch(), "amd64");
  EXPECT_EQ(inventory.packages(1).source_name(), "glibc");
  EXPECT_EQ(inventory.packages(2).name(), "lower");
  EXPECT_EQ(inventory.problems_size(), 0);
}

TEST(Dpkg, DistrolessFilesHaveNoStatus) {
  PackageList list;
  const char kText[] = "Package: tzdata\nVersion: 1\n";
  ReadDpkgStatus(kText, false, &list);
  EXPECT_EQ(Of(list).packages_size(), 0);
  ReadDpkgStatus(kText, true, &list);
  EXPECT_EQ(Of(list).packages_size(), 1);
}

TEST(Dpkg, WhatHasNoVersionIsAProblem) {
  PackageList list;
  ReadDpkgStatus("Package: x\nStatus: install ok installed\n", false, &list);
  const Inventory inventory = Of(list);
  EXPECT_EQ(inventory.packages_size(), 0);
  EXPECT_EQ(inventory.problems_size(), 1);
}

TEST(Apk, ReadsPackagesAndPaths) {
  PackageList list;
  ReadApkInstalled(
      "C:Q1\nP:musl\nV:1.2.4-r2\nA:x86_64\no:musl\nF:lib\nR:x\n\n"
      "P:py3-six\nV:1.16-r1\nF:usr/lib/python3.11/site-packages/six.egg-info\nR:PKG-INFO\n",
      &list);
  EXPECT_TRUE(list.Owns("usr/lib/python3.11/site-packages/six.egg-info/PKG-INFO"));
  EXPECT_FALSE(list.Owns("lib/x"));
  const Inventory inventory = Of(list);
  ASSERT_EQ(inventory.packages_size(), 2);
  EXPECT_EQ(inventory.packages(0).source_name(), "musl");
}

TEST(OsRelease, ReadsQuotedAndPlain) {
  const auto debian = ReadOsRelease("ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='Debian 12'\n");
  EXPECT_EQ(debian.id() + "/" + debian.version_id() + "/" + debian.name(), "debian/12/Debian 12");
  EXPECT_EQ(ReadOsRelease("ID=" + std::string(1000, 'x')).id(), "");
  EXPECT_EQ(ReadOsRelease("ID=a\x01"
                          "b")
                .id(),
            "ab");
}

TEST(Python, ReadsTheHeadAlone) {
  PackageList list;
  ReadPythonMetadata("Metadata-Version: 2.1\nName: Six\nVersion: 1.16\n\nName: other\n", "/m",
                     &list);
  ReadPythonMetadata("nothing", "/n", &list);
  const Inventory inventory = Of(list);
  ASSERT_EQ(inventory.packages_size(), 1);
  EXPECT_EQ(inventory.packages(0).name(), "Six");
  EXPECT_EQ(inventory.problems_size(), 1);
}

TEST(Npm, ReadsNameAndVersion) {
  PackageList list;
  ReadNpmPackage(R"({"name":"@a/b","version":"1.0.0","x":{"version":"2"}})", "/p", &list);
  ReadNpmPackage(R"({"type":"module"})", "/q", &list);
  ReadNpmPackage("{", "/r", &list);
  const Inventory inventory = Of(list);
  ASSERT_EQ(inventory.packages_size(), 1);
  EXPECT_EQ(inventory.packages(0).name(), "@a/b");
  EXPECT_EQ(inventory.problems_size(), 1);
}

TEST(PackageList, IsBounded) {
  PackageList list;
  scan::v1::Package package;
  package.set_kind(scan::v1::Package::DEB);
  package.set_version("1");
  for (int i = 0; i < 20'010; ++i) {
    package.set_name("p" + std::to_string(i));
    list.Add(package);
  }
  package.set_name(std::string(600, 'x'));
  list.Add(package);
  package.set_name("a b");
  list.Add(package);
  const Inventory inventory = Of(list);
  EXPECT_EQ(inventory.packages_size(), 20'000);
  EXPECT_EQ(inventory.problems_size(), 3);
}

}  // namespace
}  // namespace bunker::agent
