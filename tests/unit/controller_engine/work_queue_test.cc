#include "controller/engine/work_queue.h"

#include <map>
#include <set>
#include <vector>

#include "common/base/rng.h"
#include "gtest/gtest.h"

namespace bunker::controller {
namespace {

// Rows that wait, and what becomes of them.
class WorkQueueTest : public testing::Test {
 protected:
  struct Row {
    WorkQueue::Place place;
    std::string owner;
    uint64_t tag = 0;
  };

  void MakeQueue(WorkLimits limits) { queue_ = std::make_unique<WorkQueue>(std::move(limits)); }

  void Wait(const std::string& key, const std::string& owner, const std::string& worker,
            const std::string& registry, bool urgent = false) {
    Row& row = rows_[key];
    row = {{worker, registry}, owner, queue_->NextTag(owner, urgent)};
    queue_->Add(row.place, owner, row.tag, key);
  }

  // Admits the next row; "" where there is none.
  std::string Admit() {
    const auto key = queue_->Next();
    if (!key) return "";
    const Row& row = rows_.at(*key);
    queue_->Served(row.tag);
    queue_->Remove(row.place, row.tag, *key);
    queue_->Occupy(row.place);
    running_.push_back(*key);
    return *key;
  }
  std::vector<std::string> AdmitAll() {
    std::vector<std::string> keys;
    for (std::string key = Admit(); !key.empty(); key = Admit()) keys.push_back(key);
    return keys;
  }
  void Finish(const std::string& key) { queue_->Free(rows_.at(key).place); }

  std::unique_ptr<WorkQueue> queue_;
  std::map<std::string, Row> rows_;
  std::vector<std::string> running_;
};

TEST_F(WorkQueueTest, BoundsRegistriesAndWorkers) {
  MakeQueue({3, 2, {{"slow", 1}}});
  for (int w = 0; w < 4; ++w) queue_->SetWorker("w" + std::to_string(w), true, true);
  for (int w = 0; w < 4; ++w) {
    for (int i = 0; i < 3; ++i) {
      const std::string name = std::to_string(w) + "." + std::to_string(i);
      Wait("a" + name, "t", "w" + std::to_string(w), "one");
    }
  }
  EXPECT_EQ(AdmitAll().size(), 3u);
  EXPECT_EQ(queue_->open_at_registry("one"), 3u);
  EXPECT_EQ(queue_->open_on_worker("w0"), 2u);  // the first two of it, then another worker's
  Wait("b", "t", "w0", "two");
  EXPECT_EQ(Admit(), "");  // w0 is full
  Wait("c", "t", "w3", "two");
  EXPECT_EQ(Admit(), "c");
  Wait("d1", "t", "w2", "slow");
  Wait("d2", "t", "w3", "slow");
  EXPECT_EQ(AdmitAll(), (std::vector<std::string>{"d1"}));
  Wait("file", "t", "w2", "");
  EXPECT_EQ(Admit(), "file");  // no registry, no bound but the worker's
}

TEST_F(WorkQueueTest, OwnersTakeTurnsHoweverLongTheirQueues) {
  MakeQueue({1, 0, {}});
  queue_->SetWorker("w", true, true);
  for (int i = 0; i < 100; ++i) Wait("big" + std::to_string(100 + i), "big", "w", "r");
  std::string now = Admit();
  for (int i = 0; i < 9; ++i) {
    Finish(now);
    now = Admit();
  }
  for (int i = 0; i < 5; ++i) Wait("small" + std::to_string(i), "small", "w", "r");
  int small = 0;
  for (int i = 0; i < 12; ++i) {
    Finish(now);
    now = Admit();
    small += now.rfind("small", 0) == 0;
  }
  EXPECT_EQ(small, 5);  // one each, until its own are done
}

TEST_F(WorkQueueTest, WhoIsWaitedForPassesItsOwnersQueue) {
  MakeQueue({1, 0, {}});
  queue_->SetWorker("w", true, true);
  for (int i = 0; i < 50; ++i) Wait("row" + std::to_string(100 + i), "t", "w", "r");
  std::string now = Admit();
  Wait("urgent", "t", "w", "r", /*urgent=*/true);
  bool served = false;
  for (int i = 0; i < 2 && !served; ++i) {
    Finish(now);
    now = Admit();
    served = now == "urgent";
  }
  EXPECT_TRUE(served);
}

TEST_F(WorkQueueTest, AwayWorkersHoldNoPlaceAtTheRegistry) {
  MakeQueue({1, 1, {}});
  queue_->SetWorker("w1", true, true);
  queue_->SetWorker("w2", true, true);
  Wait("a", "t", "w1", "r");
  Wait("b", "t", "w2", "r");
  EXPECT_EQ(Admit(), "a");
  EXPECT_EQ(Admit(), "");
  queue_->SetWorker("w1", false, false);
  EXPECT_EQ(Admit(), "b");
  queue_->SetWorker("w1", true, true);  // it comes back: over the bound, for now
  EXPECT_EQ(queue_->open_at_registry("r"), 2u);
  Wait("c", "t", "w2", "r");
  Finish("b");
  EXPECT_EQ(Admit(), "");
  Finish("a");
  EXPECT_EQ(Admit(), "c");
}

TEST_F(WorkQueueTest, AStalledWorkerHoldsUpNobodyElse) {
  MakeQueue({1, 1, {}});
  queue_->SetWorker("w1", true, true);
  queue_->SetWorker("w2", true, true);
  Wait("a", "t", "w1", "r");
  Wait("b", "t", "w2", "r");
  queue_->Stall("w1");
  EXPECT_EQ(Admit(), "b");
  queue_->Wake("w1");
  EXPECT_EQ(Admit(), "");
  Finish("b");
  EXPECT_EQ(Admit(), "a");
}

// Random arrivals, failures and workers that come and go: bounds hold at every step, and each row
// is served although new ones never stop coming.
TEST_F(WorkQueueTest, NoRowStarves) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    SeededRng random(seed);
    rows_.clear();
    running_.clear();
    MakeQueue({4, 2, {}});
    for (int w = 0; w < 5; ++w) queue_->SetWorker("w" + std::to_string(w), true, true);
    std::map<std::string, int> waits_since;
    int longest = 0;
    for (int step = 0; step < 3000; ++step) {
      // Owner 0 asks for much more than its share.
      const uint64_t owner = random.Below(4) == 0 ? 1 + random.Below(3) : 0;
      if (random.Below(3) != 0) {
        const std::string key = "row" + std::to_string(step);
        Wait(key, "t" + std::to_string(owner), "w" + std::to_string(random.Below(5)),
             "r" + std::to_string(random.Below(3)), random.Below(50) == 0);
        if (owner != 0) waits_since[key] = step;
      }
      for (int i = 0; i < 2 && !running_.empty(); ++i) {
        const size_t which = random.Below(running_.size());
        Finish(running_[which]);
        running_.erase(running_.begin() + static_cast<long>(which));
      }
      for (const std::string& key : AdmitAll()) {
        const auto it = waits_since.find(key);
        if (it == waits_since.end()) continue;
        longest = std::max(longest, step - it->second);
        waits_since.erase(it);
      }
      for (int r = 0; r < 3; ++r) {
        ASSERT_LE(queue_->open_at_registry("r" + std::to_string(r)), 4u);
      }
      for (int w = 0; w < 5; ++w) ASSERT_LE(queue_->open_on_worker("w" + std::to_string(w)), 2u);
    }
    // Modest owners get through while the greedy one's queue only grows.
    EXPECT_LT(longest, 400);
    EXPECT_LT(waits_since.size(), 60u);
  }
}

// A queue filled again from tags that were kept goes on in the same order.
TEST_F(WorkQueueTest, ARestartChangesNothing) {
  MakeQueue({1, 0, {}});
  queue_->SetWorker("w", true, true);
  for (int i = 0; i < 20; ++i) {
    Wait("a" + std::to_string(10 + i), "a", "w", "r");
    if (i % 3 == 0) Wait("b" + std::to_string(10 + i), "b", "w", "r");
  }
  for (int i = 0; i < 7; ++i) Finish(Admit());
  std::vector<std::string> order;
  WorkQueue again({1, 0, {}});
  again.SetWorker("w", true, true);
  for (const auto& [key, row] : rows_) {
    if (std::find(running_.begin(), running_.end(), key) != running_.end()) continue;
    again.Add(row.place, row.owner, row.tag, key);
  }
  again.Resume();
  // One that comes now has its place among the next ones in both.
  EXPECT_LE(queue_->NextTag("c", false) - again.NextTag("c", false), 1u);
  while (const auto key = again.Next()) {
    order.push_back(*key);
    again.Remove(rows_[*key].place, rows_[*key].tag, *key);
  }
  for (const std::string& key : order) {
    EXPECT_EQ(Admit(), key);
    Finish(key);
  }
  EXPECT_EQ(Admit(), "");
}

}  // namespace
}  // namespace bunker::controller
