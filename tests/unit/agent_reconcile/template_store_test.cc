// Which templates are kept, and which one a start gets.
#include "agent/reconcile/template_store.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/temp_dir.h"

namespace bunker::agent {
namespace {

std::shared_ptr<const Template> Make(const std::string& key, uint64_t disk_mb, uint64_t bytes,
                                     const std::string& recipe = "r") {
  auto made = std::make_shared<Template>();
  made->key = key;
  made->recipe_digest = recipe;
  made->disk_mb = disk_mb;
  made->bytes = bytes;
  return made;
}

TEST(TemplateStoreTest, TheLargestDiskThatIsNotTooLarge) {
  TemplateStore store(8, 1000);
  for (const uint64_t disk_mb : {64u, 512u, 256u}) {
    ASSERT_TRUE(store.Put(Make("k", disk_mb, 1)).ok());
  }
  EXPECT_EQ(store.Find("k", 63), nullptr);
  EXPECT_EQ(store.Find("k", 64)->disk_mb, 64u);
  EXPECT_EQ(store.Find("k", 300)->disk_mb, 256u);
  EXPECT_EQ(store.Find("k", 9999)->disk_mb, 512u);
  EXPECT_EQ(store.Find("other", 9999), nullptr);
}

TEST(TemplateStoreTest, TheLeastRecentlyUsedGoesFirstByCountAndByBytes) {
  TemplateStore store(3, 100);
  for (const char* key : {"a", "b", "c"}) ASSERT_TRUE(store.Put(Make(key, 64, 30)).ok());
  EXPECT_NE(store.Find("a", 64), nullptr);
  ASSERT_TRUE(store.Put(Make("d", 64, 10)).ok());
  EXPECT_EQ(store.Find("b", 64), nullptr) << "of four, the one not used for longest";
  EXPECT_NE(store.Find("a", 64), nullptr);
  ASSERT_TRUE(store.Put(Make("e", 64, 70)).ok());
  EXPECT_EQ(store.bytes(), 100u);
  EXPECT_NE(store.Find("a", 64), nullptr);
  EXPECT_NE(store.Find("e", 64), nullptr);
  EXPECT_EQ(store.count(), 2u);
  EXPECT_FALSE(store.Put(Make("f", 64, 101)).ok()) << "too large, and nothing goes for it";
  EXPECT_EQ(store.count(), 2u);
}

TEST(TemplateStoreTest, NothingIsKeptWhereNothingMayBe) {
  TemplateStore store(0, 100);
  EXPECT_FALSE(store.Put(Make("a", 64, 1)).ok());
}

TEST(TemplateStoreTest, AnImagesTemplatesGoWithIt) {
  TemplateStore store(8, 100);
  ASSERT_TRUE(store.Put(Make("a", 64, 1, "one")).ok());
  ASSERT_TRUE(store.Put(Make("b", 64, 1, "two")).ok());
  store.DropImage("one");
  EXPECT_EQ(store.Find("a", 64), nullptr);
  EXPECT_NE(store.Find("b", 64), nullptr);
  store.Drop(store.Find("b", 64));
  EXPECT_EQ(store.count(), 0u);
}

TEST(TemplateStoreTest, AFolderGoesWithTheLastWhoHoldsIt) {
  const test::TempDir outer;
  const std::string folder = outer.File("template");
  ASSERT_TRUE(std::filesystem::create_directory(folder));
  std::ofstream(folder + "/rw.ext4") << "x";
  TemplateStore store(1, 100);
  {
    auto made = std::make_shared<Template>();
    made->key = "a";
    made->folder = folder;
    ASSERT_TRUE(store.Put(std::move(made)).ok());
  }
  std::shared_ptr<const Template> held = store.Find("a", 64);
  ASSERT_TRUE(store.Put(Make("b", 64, 1)).ok());
  EXPECT_TRUE(std::filesystem::exists(folder)) << "someone copies its disk";
  held.reset();
  EXPECT_FALSE(std::filesystem::exists(folder));
}

}  // namespace
}  // namespace bunker::agent
