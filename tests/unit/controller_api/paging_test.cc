#include "controller/api/paging.h"

#include <string>

#include <gtest/gtest.h>

namespace bunker::controller {
namespace {

TEST(CursorsTest, OnlyTheListAndTenantThatGaveItTakeIt) {
  const Cursors cursors(std::string(32, 's'));
  const std::string cursor = cursors.Make("tnt_1", "images", "img_9");
  const auto page = cursors.Parse("tnt_1", "images", 7, cursor);
  ASSERT_TRUE(page.ok());
  EXPECT_EQ(page->after_id, "img_9");
  EXPECT_EQ(page->limit, 7u);
  EXPECT_FALSE(cursors.Parse("tnt_2", "images", 7, cursor).ok());
  EXPECT_FALSE(cursors.Parse("tnt_1", "groups", 7, cursor).ok());
  EXPECT_FALSE(Cursors(std::string(32, 't')).Parse("tnt_1", "images", 7, cursor).ok());
  for (size_t i = 0; i < cursor.size(); ++i) {
    std::string changed = cursor;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    const auto parsed = cursors.Parse("tnt_1", "images", 7, changed);
    // The last character may hold bits that mean nothing.
    EXPECT_TRUE(!parsed.ok() || parsed->after_id == "img_9") << i;
  }
  EXPECT_FALSE(cursors.Parse("tnt_1", "images", 7, "").value().after_id.size() > 0);
  EXPECT_FALSE(cursors.Parse("tnt_1", "images", 7, std::string(2000, 'A')).ok());
}

TEST(CursorsTest, PartsCannotBeShifted) {
  const Cursors cursors(std::string(32, 's'));
  const std::string cursor = cursors.Make("ab", "c", "x");
  EXPECT_FALSE(cursors.Parse("a", "bc", 1, cursor).ok());
}

TEST(CursorsTest, Limits) {
  const Cursors cursors(std::string(32, 's'));
  EXPECT_EQ(cursors.Parse("t", "l", std::nullopt, std::nullopt)->limit, 50u);
  EXPECT_EQ(cursors.Parse("t", "l", 200, std::nullopt)->limit, 200u);
  EXPECT_FALSE(cursors.Parse("t", "l", 0, std::nullopt).ok());
  EXPECT_FALSE(cursors.Parse("t", "l", 201, std::nullopt).ok());
}

}  // namespace
}  // namespace bunker::controller
