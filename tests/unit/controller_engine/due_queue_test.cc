#include "controller/engine/due_queue.h"

#include <map>
#include <string>

#include "common/base/rng.h"
#include "gtest/gtest.h"

namespace bunker::controller {
namespace {

absl::Time At(int64_t seconds) {
  return absl::FromUnixSeconds(seconds);
}

TEST(DueQueueTest, GivesWhatIsDueInOrderAndOnce) {
  DueQueue queue;
  queue.ArmBy("c", At(20));
  queue.ArmBy("b", At(10));
  queue.ArmBy("a", At(10));
  queue.ArmBy("never", absl::InfiniteFuture());
  EXPECT_EQ(queue.PopDue(At(9)), std::nullopt);
  EXPECT_EQ(queue.PopDue(At(10)), "a");
  EXPECT_EQ(queue.PopDue(At(10)), "b");
  EXPECT_EQ(queue.PopDue(At(10)), std::nullopt);
  EXPECT_EQ(queue.PopDue(At(100)), "c");
  EXPECT_EQ(queue.size(), 0u);
}

TEST(DueQueueTest, ArmingNeverPutsALookOff) {
  DueQueue queue;
  queue.ArmBy("a", At(10));
  queue.ArmBy("a", At(30));
  EXPECT_EQ(queue.PopDue(At(10)), "a");
  queue.ArmBy("a", At(30));
  queue.ArmBy("a", absl::InfinitePast());
  EXPECT_EQ(queue.PopDue(At(0)), "a");
  EXPECT_EQ(queue.size(), 0u);
  queue.ArmBy("a", At(5));
  queue.Disarm("a");
  queue.Disarm("unknown");
  EXPECT_EQ(queue.PopDue(At(100)), std::nullopt);
}

TEST(DueQueueTest, AgreesWithAPlainMap) {
  SeededRng rng(5);
  DueQueue queue;
  std::map<std::string, absl::Time> model;
  for (int step = 0; step < 20'000; ++step) {
    const std::string id = std::to_string(rng.Below(50));
    switch (rng.Below(4)) {
      case 0:
      case 1: {
        const absl::Time at = At(static_cast<int64_t>(rng.Below(1000)));
        queue.ArmBy(id, at);
        const auto [it, added] = model.try_emplace(id, at);
        it->second = std::min(it->second, at);
        break;
      }
      case 2:
        queue.Disarm(id);
        model.erase(id);
        break;
      case 3: {
        const absl::Time now = At(static_cast<int64_t>(rng.Below(1000)));
        auto first = model.end();
        for (auto it = model.begin(); it != model.end(); ++it) {
          if (it->second <= now && (first == model.end() || it->second < first->second)) first = it;
        }
        const std::optional<std::string> popped = queue.PopDue(now);
        ASSERT_EQ(popped.has_value(), first != model.end());
        if (popped) {
          ASSERT_EQ(*popped, first->first);
          model.erase(first);
        }
        break;
      }
    }
    ASSERT_EQ(queue.size(), model.size());
  }
}

}  // namespace
}  // namespace bunker::controller
