#include "controller/scan/package_index.h"

#include <gtest/gtest.h>

namespace bunker::controller {
namespace {

using scan::v1::Package;

scan::v1::Inventory With(const std::string& version) {
  scan::v1::Inventory inventory;
  inventory.mutable_distribution()->set_id("debian");
  inventory.mutable_distribution()->set_version_id("12");
  Package* package = inventory.add_packages();
  package->set_kind(Package::DEB);
  package->set_name("libc6");
  package->set_version(version);
  package->set_source_name("glibc");
  return inventory;
}

TEST(PackageIndex, FindsByNameSourceAndVersion) {
  PackageIndex index;
  index.Put("img_1", With("2.36-9"));
  index.Put("img_2", With("2.36-10"));
  index.Put("img_3", With("2.36-9"));
  EXPECT_EQ(index.Find({"libc6", "", ""}).size(), 3u);
  EXPECT_EQ(index.Find({"glibc", "", "Debian:12"}).size(), 3u);
  EXPECT_EQ(index.Find({"libc6", "", "Debian"}).size(), 3u);
  EXPECT_EQ(index.Find({"libc6", "", "Deb"}).size(), 0u);
  EXPECT_EQ(index.Find({"libc6", "", "Debian:1"}).size(), 0u);
  const auto older = index.Find({"libc6", "2.36-10", ""});
  ASSERT_EQ(older.size(), 2u);
  EXPECT_EQ(older[0].image_id, "img_1");
  EXPECT_EQ(older[1].image_id, "img_3");
  EXPECT_EQ(index.Find({"libc6", "not a version!", ""}).size(), 0u);
}

TEST(PackageIndex, ReplacesAnImage) {
  PackageIndex index;
  index.Put("img_1", With("2.36-9"));
  index.Put("img_1", With("2.36-10"));
  const auto hits = index.Find({"libc6", "", ""});
  ASSERT_EQ(hits.size(), 1u);
  EXPECT_EQ(hits[0].version, "2.36-10");
  index.Put("img_1", {});
  EXPECT_TRUE(index.Find({"libc6", "", ""}).empty());
}

}  // namespace
}  // namespace bunker::controller
