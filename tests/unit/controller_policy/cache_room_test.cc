#include "controller/policy/cache_room.h"

#include "gtest/gtest.h"

namespace bunker::controller {
namespace {

constexpr uint64_t kMib = 1 << 20;

CachedFile File(const std::string& id, uint64_t mib, int used_at_s, Pin pin) {
  return {id, mib * kMib, absl::FromUnixSeconds(used_at_s), pin};
}

using Ids = std::vector<std::string>;

TEST(CacheRoom, WhatFitsEvictsNothing) {
  const CacheState cache{100 * kMib, 60 * kMib, 0, {File("a", 60, 1, Pin::kNone)}};
  const RoomVerdict room = MakeRoom(40 * kMib, cache);
  EXPECT_TRUE(room.fits);
  EXPECT_TRUE(room.evict.empty());
  EXPECT_EQ(room.free_bytes, 40 * kMib);
  EXPECT_TRUE(MakeRoom(uint64_t{1} << 50, CacheState{}).fits);  // nothing is known: no bound
}

TEST(CacheRoom, TheLeastRecentlyUsedOfTheUnpinnedGoFirst) {
  const CacheState cache{100 * kMib,
                         95 * kMib,
                         0,
                         {File("new", 20, 30, Pin::kNone), File("old", 10, 10, Pin::kNone),
                          File("older", 10, 5, Pin::kNone), File("pinned", 20, 1, Pin::kGroup),
                          File("runs", 25, 1, Pin::kUse), File("recent", 10, 0, Pin::kAge)}};
  const RoomVerdict room = MakeRoom(20 * kMib, cache);
  EXPECT_FALSE(room.fits);
  EXPECT_TRUE(room.could);
  EXPECT_EQ(room.evict, (Ids{"older", "old"}));
  EXPECT_EQ(MakeRoom(26 * kMib, cache).evict, (Ids{"older", "old", "new"}));
}

TEST(CacheRoom, WhatIsGoingIsWaitedFor) {
  const CacheState cache{100 * kMib, 90 * kMib, 30 * kMib, {File("a", 60, 1, Pin::kGroup)}};
  const RoomVerdict room = MakeRoom(40 * kMib, cache);
  EXPECT_FALSE(room.fits);
  EXPECT_TRUE(room.could);
  EXPECT_TRUE(room.evict.empty());
}

TEST(CacheRoom, NamesWhatStandsInTheWay) {
  const CacheState cache{100 * kMib,
                         90 * kMib,
                         0,
                         {File("a", 30, 9, Pin::kGroup), File("b", 30, 3, Pin::kGroup),
                          File("runs", 20, 1, Pin::kUse), File("loose", 10, 1, Pin::kNone)}};
  RoomVerdict room = MakeRoom(45 * kMib, cache);
  EXPECT_FALSE(room.could);
  EXPECT_TRUE(room.evict.empty());
  EXPECT_EQ(room.in_the_way, (Ids{"b"}));
  room = MakeRoom(60 * kMib, cache);
  EXPECT_EQ(room.in_the_way, (Ids{"b", "a"}));
  room = MakeRoom(95 * kMib, cache);  // what runs never goes
  EXPECT_FALSE(room.could);
  EXPECT_TRUE(room.in_the_way.empty());
}

}  // namespace
}  // namespace bunker::controller
