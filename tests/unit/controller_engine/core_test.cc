#include "controller/engine/core.h"

#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

TEST(Core, NothingLeavesBeforeItIsDurable) {
  Harness h({}, /*manual_store=*/true);
  h.hold_commits = true;
  std::string log;
  h.core->Post([&](Engine& e, Turn& t) {
    RegisterImageSpec spec;
    spec.name = "a";
    ASSERT_TRUE(e.RegisterImage(t, h.admin, spec).ok());
    t.AfterCommit([&](const absl::Status& status) {
      EXPECT_TRUE(status.ok());
      log += "created ";
    });
  });
  h.loop.RunUntilIdle();
  // A read sees the row in memory, but its answer waits as well.
  h.core->Post([&](Engine& e, Turn& t) {
    EXPECT_TRUE(e.FindImage(h.admin, "a").ok());
    t.AfterCommit([&](const absl::Status&) { log += "read "; });
  });
  h.loop.RunUntilIdle();
  EXPECT_EQ(log, "");
  EXPECT_EQ(h.store->waiting(), 1u);
  ASSERT_TRUE(h.store->CommitNext());
  h.loop.RunUntilIdle();
  EXPECT_EQ(log, "created read ");
}

TEST(Core, WhatArrivesDuringACommitSharesTheNext) {
  Harness h({}, /*manual_store=*/true);
  h.hold_commits = true;
  const uint64_t before = h.store->commits();
  int done = 0;
  for (int i = 0; i < 100; ++i) {
    h.core->Post([&, i](Engine& e, Turn& t) {
      RegisterImageSpec spec;
      spec.name = "image-" + std::to_string(i);
      ASSERT_TRUE(e.RegisterImage(t, h.admin, spec).ok());
      t.AfterCommit([&](const absl::Status&) { ++done; });
    });
    h.loop.RunUntilIdle();
  }
  while (h.store->CommitNext()) h.loop.RunUntilIdle();
  EXPECT_EQ(done, 100);
  EXPECT_LE(h.store->commits() - before, 2u);
}

TEST(Core, OutputsRunInOrderAndBeforeTheWatchers) {
  Harness h;
  std::string log;
  h.core->Watch([&](const ChangeSet& changes) {
    log += "w" + std::to_string(changes.images.size());
  });
  h.core->Post([&](Engine& e, Turn& t) {
    for (const char* name : {"a", "b"}) {
      RegisterImageSpec spec;
      spec.name = name;
      ASSERT_TRUE(e.RegisterImage(t, h.admin, spec).ok());
      t.AfterCommit([&log, name](const absl::Status&) { log += name; });
    }
  });
  h.Settle();
  EXPECT_EQ(log, "abw2");
  for (size_t i = 1; i < h.sequences.size(); ++i) EXPECT_GT(h.sequences[i], h.sequences[i - 1]);
}

TEST(Core, AFullDiskTakesEverythingBackAndSaysSo) {
  Harness h({}, /*manual_store=*/true);
  const std::string w1 = h.AddWorker("w1");
  const RowPtr<Image> image = h.Register("a");
  h.MakeGroup("g", {"a"}, {"w1"});
  h.MakeReady(w1, image->id);
  const MemStore::Rows rows = h.store->rows();
  h.store->SetFull(true);
  h.hold_commits = true;
  std::vector<std::string> answers;
  const auto create = [&] {
    h.core->Post([&](Engine& e, Turn& t) {
      CreateBunkerSpec spec;
      spec.image = "a";
      spec.memory_mb = 3000;
      const auto row = e.CreateBunker(t, h.admin, spec, nullptr);
      EXPECT_TRUE(row.ok()) << row.status();
      t.AfterCommit([&](const absl::Status& status) { answers.push_back(ReasonOf(status)); });
    });
    h.loop.RunUntilIdle();
  };
  create();
  create();  // handled on top of the first one, while that is on its way
  ASSERT_TRUE(h.store->CommitNext());
  h.loop.RunUntilIdle();
  EXPECT_EQ(answers, (std::vector<std::string>{"UNAVAILABLE", "UNAVAILABLE"}));
  EXPECT_FALSE(h.core->store_has_room());
  EXPECT_EQ(h.store->rows(), rows);
  EXPECT_TRUE(h.engine->CheckInvariants().ok());
  EXPECT_TRUE(h.engine->ListBunkers(h.admin, {}, {}).rows.empty());

  // Room again: the whole capacity is there to be taken.
  h.store->SetFull(false);
  h.hold_commits = false;
  answers.clear();
  create();
  create();
  h.Settle();
  EXPECT_EQ(answers, (std::vector<std::string>{"", ""}));
  EXPECT_TRUE(h.core->store_has_room());
  EXPECT_EQ(h.engine->ListBunkers(h.admin, {}, {}).rows.size(), 2u);
}

// What was acked is there after a restart; what was not may be missing, but never half of it.
TEST(Core, ACrashKeepsExactlyWhatWasAcked) {
  for (int commits = 0; commits <= 6; ++commits) {
    Harness h({}, /*manual_store=*/true);
    h.hold_commits = true;
    std::set<std::string> acked;
    for (int i = 0; i < 6; ++i) {
      h.core->Post([&, i](Engine& e, Turn& t) {
        RegisterImageSpec spec;
        spec.name = "image-" + std::to_string(i);
        const auto image = e.RegisterImage(t, h.admin, spec);
        ASSERT_TRUE(image.ok());
        IdempotencyRecord record;
        record.tenant_id = h.admin.tenant_id;
        record.key = "key-" + std::to_string(i);
        record.body = (*image)->id;
        ASSERT_TRUE(e.StoreIdempotent(t, record).ok());
        t.AfterCommit([&acked, name = spec.name](const absl::Status& status) {
          if (status.ok()) acked.insert(name);
        });
      });
      h.loop.RunUntilIdle();
      if (i < commits) {
        h.store->CommitNext();
        h.loop.RunUntilIdle();
      }
    }
    Harness again({}, false, h.store->rows());
    std::set<std::string> found;
    for (const auto& image : again.engine->ListImages(again.admin, {}, {}).rows) {
      found.insert(image->name);
    }
    for (const std::string& name : acked) EXPECT_EQ(found.count(name), 1u) << name;
    // The effect and its idempotency record are one commit.
    for (int i = 0; i < 6; ++i) {
      const auto record = again.Do([&](Engine& e, Turn& t) {
        return e.FindIdempotent(t, again.admin.tenant_id, "key-" + std::to_string(i), "");
      });
      ASSERT_TRUE(record.ok());
      EXPECT_EQ(*record != nullptr, found.count("image-" + std::to_string(i)) == 1);
    }
  }
}

TEST(Core, WaitsForABunkerUntilItRunsFailsOrTheDeadline) {
  Harness h;
  const std::string w1 = h.AddWorker("w1");
  const RowPtr<Image> image = h.Register("a");
  h.MakeGroup("g", {"a"}, {"w1"});
  h.MakeReady(w1, image->id);
  const auto wait = [&](const RowPtr<Bunker>& row, absl::Duration left) {
    auto got = std::make_shared<std::string>("waiting");
    h.core->WaitForBunker(row, {BunkerStatus::kRunning}, h.loop.Now() + left,
                          [got](RowPtr<Bunker> last) {
                            *got = last == nullptr ? "gone" : std::string(NameOf(last->status));
                          });
    return got;
  };
  const RowPtr<Bunker> runs = *h.Create("a");
  const auto running = wait(runs, absl::Seconds(60));
  EXPECT_EQ(*running, "waiting");
  h.ObserveBunker(w1, runs->id, BunkerStatus::kRunning);
  EXPECT_EQ(*running, "running");

  const RowPtr<Bunker> fails = *h.Create("a");
  const auto failed = wait(fails, absl::Seconds(60));
  h.ObserveBunker(w1, fails->id, BunkerStatus::kFailed,
                  [](BunkerObservation& seen) { seen.status_reason = "BOOT_FAILED"; });
  EXPECT_EQ(*failed, "failed");

  const RowPtr<Bunker> slow = *h.Create("a");
  const auto late = wait(slow, absl::Seconds(5));
  h.Advance(absl::Seconds(6));
  EXPECT_EQ(*late, "provisioning");

  auto told = std::make_shared<bool>(false);
  const Core::WaitId id =
      h.core->WaitForBunker(slow, {BunkerStatus::kRunning}, h.loop.Now() + absl::Seconds(5),
                            [told](RowPtr<Bunker>) { *told = true; });
  EXPECT_EQ(told.use_count(), 2);
  h.core->CancelWait(id);
  EXPECT_EQ(told.use_count(), 1) << "what a cancelled wait held is kept";
  h.core->CancelWait(id);
  h.ObserveBunker(w1, slow->id, BunkerStatus::kRunning);
  h.Advance(absl::Seconds(6));
  EXPECT_FALSE(*told);
  EXPECT_EQ(*wait(h.Get(runs->id), absl::Seconds(5)), "running");
}

TEST(Core, TimeNeverGoesBackForTheEngine) {
  Harness h;
  absl::Time last = absl::InfinitePast();
  for (int i = 0; i < 5; ++i) {
    h.Run([&](Engine&, Turn& t) {
      EXPECT_GE(t.now(), last);
      last = t.now();
    });
    h.loop.Advance(absl::Milliseconds(3));
  }
}

}  // namespace
}  // namespace bunker::controller
