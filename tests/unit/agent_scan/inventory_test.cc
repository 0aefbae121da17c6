#include "agent/scan/inventory.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>

#include "common/base/unique_fd.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/agent_scan/ext4_folder.h"

namespace bunker::agent::test {
namespace {

using bunker::test::TempDir;

scan::v1::Inventory InventoryOf(const std::string& folder, const std::string& file) {
  MakeExt4(folder, file);
  const UniqueFd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC));
  const auto inventory = TakeInventory(fd.get());
  EXPECT_TRUE(inventory.ok()) << inventory.status();
  return inventory.ok() ? *inventory : scan::v1::Inventory();
}

std::set<std::string> Names(const scan::v1::Inventory& inventory) {
  std::set<std::string> names;
  for (const auto& package : inventory.packages())
    names.insert(scan::v1::Package::Kind_Name(package.kind()) + " " + package.name() + " " +
                 package.version());
  return names;
}

TEST(Inventory, FindsEveryKind) {
  TempDir dir;
  const std::string root = dir.File("root");
  WriteBelow(root, "usr/lib/os-release", "ID=debian\nVERSION_ID=12\n");
  std::filesystem::create_directories(root + "/etc");
  std::filesystem::create_symlink("../usr/lib/os-release", root + "/etc/os-release");
  WriteBelow(root, "var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nVersion: 1\n");
  WriteBelow(root, "var/lib/dpkg/status.d/b", "Package: b\nVersion: 2\n");
  WriteBelow(root, "lib/apk/db/installed", "P:c\nV:3\n");
  WriteBelow(root, "opt/d-4.dist-info/METADATA", "Name: d\nVersion: 4\n");
  WriteBelow(root, "opt/e.egg-info/PKG-INFO", "Name: e\nVersion: 5\n");
  WriteBelow(root, "opt/f-6.egg-info", "Name: f\nVersion: 6\n");
  WriteBelow(root, "opt/node_modules/g/package.json", R"({"name":"g","version":"7.0.0"})");
  WriteBelow(root, "opt/node_modules/@s/h/package.json", R"({"name":"@s/h","version":"8.0.0"})");
  WriteBelow(root, "opt/node_modules/g/test/package.json", R"({"name":"no","version":"9.0.0"})");
  const auto inventory = InventoryOf(root, dir.File("image"));
  EXPECT_EQ(inventory.distribution().id(), "debian");
  EXPECT_EQ(Names(inventory),
            (std::set<std::string>{"DEB a 1", "DEB b 2", "APK c 3", "PYPI d 4", "PYPI e 5",
                                   "PYPI f 6", "NPM g 7.0.0", "NPM @s/h 8.0.0"}));
  EXPECT_EQ(inventory.problems_size(), 0) << inventory.DebugString();
}

// Debian's python3-six is Debian's: its fixes are not in the version that PyPI knows.
TEST(Inventory, LeavesOutWhatTheDistributionOwns) {
  TempDir dir;
  const std::string root = dir.File("root");
  WriteBelow(root, "var/lib/dpkg/status",
             "Package: python3-six\nStatus: install ok installed\nVersion: 1.16.0-4\n");
  WriteBelow(root, "var/lib/dpkg/info/python3-six.list",
             "/.\n/usr/lib/python3/dist-packages/six-1.16.0.egg-info/PKG-INFO\n");
  WriteBelow(root, "usr/lib/python3/dist-packages/six-1.16.0.egg-info/PKG-INFO",
             "Name: six\nVersion: 1.16.0\n");
  WriteBelow(root, "usr/local/lib/python3.11/dist-packages/six-1.15.0.dist-info/METADATA",
             "Name: six\nVersion: 1.15.0\n");
  EXPECT_EQ(Names(InventoryOf(root, dir.File("image"))),
            (std::set<std::string>{"DEB python3-six 1.16.0-4", "PYPI six 1.15.0"}));
}

TEST(Inventory, TellsWhatItCannotRead) {
  TempDir dir;
  const std::string root = dir.File("root");
  WriteBelow(root, "var/lib/rpm/Packages", "Berkeley DB");
  WriteBelow(root, "opt/node_modules/x/package.json", "{");
  const auto inventory = InventoryOf(root, dir.File("image"));
  EXPECT_EQ(inventory.packages_size(), 0);
  EXPECT_EQ(inventory.problems_size(), 2) << inventory.DebugString();

  const std::string empty = dir.File("empty");
  WriteBelow(empty, "bin/sh", "x");
  const auto nothing = InventoryOf(empty, dir.File("empty-image"));
  ASSERT_EQ(nothing.problems_size(), 1);
  EXPECT_NE(nothing.problems(0).find("no package data"), std::string::npos);
}

TEST(Inventory, LinksStayInsideTheImage) {
  TempDir dir;
  const std::string root = dir.File("root");
  std::filesystem::create_directories(root + "/etc");
  std::filesystem::create_directories(root + "/var/lib/dpkg");
  std::filesystem::create_symlink("/../../../../etc/passwd", root + "/etc/os-release");
  std::filesystem::create_symlink("status", root + "/var/lib/dpkg/status");
  const auto inventory = InventoryOf(root, dir.File("image"));
  EXPECT_EQ(inventory.distribution().id(), "");
  EXPECT_EQ(inventory.packages_size(), 0);
}

TEST(Inventory, RefusesWhatIsNoExt4) {
  TempDir dir;
  WriteBelow(dir.path(), "file", std::string(1 << 20, 'x'));
  const UniqueFd fd(open(dir.File("file").c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_FALSE(TakeInventory(fd.get()).ok());
}

}  // namespace
}  // namespace bunker::agent::test
