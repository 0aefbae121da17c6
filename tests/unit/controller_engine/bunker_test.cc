#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

class Bunkers : public testing::Test {
 protected:
  void SetUp() override {
    w1 = h.AddWorker("w1");
    image = h.Register("a");
    h.MakeGroup("g", {"a"}, {w1});
    h.MakeReady(w1, image->id);
  }
  RowPtr<Bunker> Running(std::function<void(CreateBunkerSpec&)> edit = nullptr) {
    const auto row = h.Create("a", std::move(edit));
    EXPECT_TRUE(row.ok()) << row.status();
    h.ObserveBunker(w1, (*row)->id, BunkerStatus::kRunning);
    return h.Get((*row)->id);
  }

  Harness h;
  std::string w1;
  RowPtr<Image> image;
};

TEST_F(Bunkers, RoomIsTakenWithTheRowAndGivenBackWhenTheVmIsGone) {
  const auto big = [](CreateBunkerSpec& spec) { spec.memory_mb = 8000; };
  const auto first = h.Create("a", big);
  ASSERT_TRUE(first.ok());
  PlacementExplanation why;
  const auto second = h.Create("a", big, &why);
  EXPECT_EQ(ReasonOf(second.status()), "WORKER_UNAVAILABLE");
  ASSERT_EQ(why.rows.size(), 1u);
  EXPECT_EQ(*why.rows[0].predicate, Predicate::kMemory);
  EXPECT_EQ(why.rows[0].shortfall, "not enough memory: 96 MiB left, 8096 needed");
  // Deleting is not enough: the VM may still be there.
  h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, (*first)->id); });
  EXPECT_EQ(ReasonOf(h.Create("a", big).status()), "WORKER_UNAVAILABLE");
  h.ObserveBunker(w1, (*first)->id, BunkerStatus::kStopped);
  EXPECT_TRUE(h.Create("a", big).ok());
}

TEST_F(Bunkers, NamesAreUniqueAmongLiveOnes) {
  const auto named = [](CreateBunkerSpec& spec) { spec.name = "one"; };
  const RowPtr<Bunker> row = Running(named);
  EXPECT_EQ(ReasonOf(h.Create("a", named).status()), "SLUG_CONFLICT");
  EXPECT_EQ(h.Get("one")->id, row->id);
  h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, "one"); });
  h.ObserveBunker(w1, row->id, BunkerStatus::kStopped);
  EXPECT_TRUE(h.Create("a", named).ok());
}

TEST_F(Bunkers, DeleteIsLegalInEveryStatusAndRepeatable) {
  const RowPtr<Bunker> row = *h.Create("a");
  for (int i = 0; i < 3; ++i) {
    const auto deleted =
        h.Do([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, row->id); });
    ASSERT_TRUE(deleted.ok());
    EXPECT_EQ((*deleted)->status, BunkerStatus::kStopping);
  }
  // A late "running" does not bring it back.
  h.ObserveBunker(w1, row->id, BunkerStatus::kRunning);
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kStopping);
  h.ObserveBunker(w1, row->id, BunkerStatus::kStopped);
  const RowPtr<Bunker> ended = h.Get(row->id);
  EXPECT_EQ(ended->status, BunkerStatus::kStopped);
  EXPECT_EQ(ended->status_reason, "DELETED");
  const auto again =
      h.Do([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, row->id); });
  EXPECT_EQ(*again, ended);  // the very row: nothing was written
  // Nor does anything else: terminal states are final, and the worker is told to end it.
  h.ObserveBunker(w1, row->id, BunkerStatus::kRunning);
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kStopped);
  ASSERT_NE(h.BunkerRow(w1, row->id), nullptr);
  EXPECT_TRUE(h.BunkerRow(w1, row->id)->stopped);
  h.ObserveBunker(w1, row->id, BunkerStatus::kStopped);
  EXPECT_EQ(h.BunkerRow(w1, row->id), nullptr);
}

TEST_F(Bunkers, AFailureLeavesNothingBehind) {
  const RowPtr<Bunker> row = *h.Create("a");
  h.ObserveBunker(w1, row->id, BunkerStatus::kFailed, [](BunkerObservation& seen) {
    seen.status_reason = "image DISK_FULL: make room";
  });
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kFailed);
  EXPECT_EQ(h.Get(row->id)->status_reason, "DISK_FULL");
  EXPECT_EQ(h.Get(row->id)->status_message, "image DISK_FULL: make room");
  EXPECT_EQ(h.BunkerRow(w1, row->id), nullptr);
  const auto view = h.Do([&](Engine& e, Turn&) { return e.FindWorker(h.admin, w1); });
  EXPECT_EQ(view->allocated, Resources{});
  const struct {
    const char *reason, *message, *code, *text;
  } kCases[] = {{"VM_EXITED", "qemu died", "VM_EXITED", "qemu died"},
                {"VM_EXITED", "", "VM_EXITED", ""},
                {"", "", "BOOT_FAILED", ""},
                {"it broke: badly", "", "BOOT_FAILED", "it broke: badly"},
                {"INTERNAL: no memory", "", "INTERNAL", "INTERNAL: no memory"}};
  for (const auto& one : kCases) {
    const RowPtr<Bunker> next = *h.Create("a");
    h.ObserveBunker(w1, next->id, BunkerStatus::kFailed, [&](BunkerObservation& seen) {
      seen.status_reason = one.reason;
      seen.status_message = one.message;
    });
    EXPECT_EQ(h.Get(next->id)->status_reason, one.code);
    EXPECT_EQ(h.Get(next->id)->status_message, one.text);
  }
}

TEST_F(Bunkers, ABootThatADeleteCancelledHasNotFailed) {
  const RowPtr<Bunker> row = *h.Create("a");
  h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, row->id); });
  h.ObserveBunker(w1, row->id, BunkerStatus::kFailed,
                  [](BunkerObservation& seen) { seen.status_reason = "CANCELLED"; });
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kStopped);
  EXPECT_EQ(h.Get(row->id)->status_reason, "DELETED");
  EXPECT_EQ(h.BunkerRow(w1, row->id), nullptr);
}

TEST_F(Bunkers, UnknownOnesAreEnded) {
  h.ObserveBunker(w1, "bnk_0123", BunkerStatus::kRunning);
  ASSERT_NE(h.BunkerRow(w1, "bnk_0123"), nullptr);
  EXPECT_TRUE(h.BunkerRow(w1, "bnk_0123")->stopped);
  h.Run([&](Engine& e, Turn& t) { e.OnObservationRemoved(t, w1, BunkerRowName("bnk_0123")); });
  EXPECT_EQ(h.BunkerRow(w1, "bnk_0123"), nullptr);
}

TEST_F(Bunkers, MaximumLifetimeEndsAnEphemeralOne) {
  const RowPtr<Bunker> row = Running([](CreateBunkerSpec& spec) { spec.idle_timeout_s = 0; });
  EXPECT_EQ(*row->expires_at, row->created_at + absl::Hours(1));
  h.Advance(absl::Minutes(59));
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kRunning);
  h.Advance(absl::Seconds(61));
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kStopping);
  EXPECT_EQ(h.Get(row->id)->status_reason, "MAX_LIFETIME");
  EXPECT_TRUE(h.BunkerRow(w1, row->id)->stopped);
}

TEST_F(Bunkers, IdleMeansNoExec) {
  const RowPtr<Bunker> row = Running();
  h.Advance(absl::Minutes(9));
  ASSERT_TRUE(
      h.Do([&](Engine& e, Turn& t) { return e.BeginExec(t, h.admin, row->id); }).ok());
  h.Advance(absl::Minutes(20));  // one long exec
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kRunning);
  h.Run([&](Engine& e, Turn& t) { e.EndExec(t, row->id); });
  h.Advance(absl::Minutes(9));
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kRunning);
  // The agent's word counts as well: it outlives this process.
  h.ObserveBunker(w1, row->id, BunkerStatus::kRunning, [&](BunkerObservation& seen) {
    seen.last_activity_at = h.loop.Now();
  });
  h.Advance(absl::Minutes(9));
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kRunning);
  h.Advance(absl::Minutes(1) + absl::Seconds(1));
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kStopping);
  EXPECT_EQ(h.Get(row->id)->status_reason, "IDLE_TIMEOUT");
}

TEST_F(Bunkers, ExecNeedsARunningOne) {
  const RowPtr<Bunker> row = *h.Create("a");
  auto begun = h.Do([&](Engine& e, Turn& t) { return e.BeginExec(t, h.admin, row->id); });
  EXPECT_EQ(ReasonOf(begun.status()), "BUNKER_NOT_RUNNING");
  EXPECT_NE(begun.status().message().find("wait until it is running"), absl::string_view::npos);
  begun = h.Do([&](Engine& e, Turn& t) { return e.BeginExec(t, h.admin, "nope"); });
  EXPECT_EQ(ReasonOf(begun.status()), "NOT_FOUND");
}

TEST_F(Bunkers, ABootThatNeverReportsFailsAtItsDeadline) {
  const RowPtr<Bunker> row = *h.Create("a");
  h.Advance(absl::Seconds(179));
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kProvisioning);
  h.Advance(absl::Seconds(2));
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kFailed);
  EXPECT_EQ(h.Get(row->id)->status_reason, "BOOT_TIMEOUT");
  EXPECT_TRUE(h.BunkerRow(w1, row->id)->stopped);
  h.ObserveBunker(w1, row->id, BunkerStatus::kStopped);
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kFailed);  // final
  EXPECT_EQ(h.BunkerRow(w1, row->id), nullptr);
}

TEST_F(Bunkers, AStopThatIsNotConfirmedIsToldAgain) {
  const RowPtr<Bunker> row = Running();
  h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, row->id); });
  const std::string key = w1 + "/" + BunkerRowName(row->id);
  const uint64_t version = h.desired.at(key)->version;
  h.Advance(absl::Seconds(62));
  EXPECT_GT(h.desired.at(key)->version, version);
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kStopping);
}

TEST_F(Bunkers, AFailedBakeFailsTheBunkersThatWaitForIt) {
  const RowPtr<Image> lazy = h.Register("lazy", true);
  const auto row = h.Create("lazy");
  ASSERT_TRUE(row.ok()) << row.status();
  h.ObserveImage(w1, lazy->id, CacheStatus::kFailed, [](ImageObservation& seen) {
    seen.error_code = "SIZE_CAP_EXCEEDED";
    seen.error_message = "it needs 4000 MiB";
  });
  h.Advance(absl::Seconds(2));
  EXPECT_EQ(h.Get((*row)->id)->status, BunkerStatus::kFailed);
  EXPECT_EQ(h.Get((*row)->id)->status_reason, "SIZE_CAP_EXCEEDED");
}

TEST_F(Bunkers, AFileThatHadNotGoneYetStartsTheBootsDeadline) {
  const RowPtr<Image> lazy = h.Register("lazy", true);
  const auto first = h.Create("lazy");
  ASSERT_TRUE(first.ok()) << first.status();
  h.MakeReady(w1, lazy->id);
  h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, (*first)->id); });
  h.ObserveBunker(w1, (*first)->id, BunkerStatus::kStopped);
  // A group without this worker: the sweep drops the file, of whose end the worker has not told.
  h.AddWorker("w2");
  h.MakeGroup("other", {"lazy"}, {"w2"});
  h.Advance(absl::Seconds(125));
  EXPECT_EQ(h.Entry(lazy->id, w1), nullptr);
  EXPECT_EQ(h.ImageRow(w1, lazy->id), nullptr);
  h.Must([&](Engine& e, Turn& t) { return e.DetachImage(t, h.admin, "other", "lazy"); });
  for (int i = 0; i < 8; ++i) {
    const auto row = h.Create("lazy");
    ASSERT_TRUE(row.ok()) << row.status();
    if ((*row)->worker_id != w1) continue;
    EXPECT_TRUE(h.Get((*row)->id)->boot_since.has_value());
    return;
  }
  ADD_FAILURE() << "none was placed on " << w1;
}

TEST_F(Bunkers, AStopThatTheGuestMadeHasACodeAndAText) {
  const RowPtr<Bunker> row = Running();
  h.ObserveBunker(w1, row->id, BunkerStatus::kStopped, [](BunkerObservation& seen) {
    seen.status_reason = "GUEST_POWERED_OFF: the guest ended itself";
  });
  EXPECT_EQ(h.Get(row->id)->status_reason, "GUEST_POWERED_OFF");
  EXPECT_EQ(h.Get(row->id)->status_message, "GUEST_POWERED_OFF: the guest ended itself");
}

TEST_F(Bunkers, WhatIsNotBuiltIsRefused) {
  PlacementExplanation why;
  EXPECT_EQ(ReasonOf(h.Create("a", [](CreateBunkerSpec& s) { s.gpu_count = 1; }, &why).status()),
            "WORKER_UNAVAILABLE");
  EXPECT_EQ(why.counts.at("gpu"), 1u);
}

TEST_F(Bunkers, AWorkerThatCannotEnforceTheProfileGetsNone) {
  WorkerFacts facts;
  facts.capacity = {4000, 8192, 100'000};
  facts.arch = Arch::kX86_64;
  facts.network_profiles = {"isolated"};
  for (const auto& [id, row] : h.heartbeats) {
    h.Do([&, name = id](Engine& e, Turn& t) {
      return e.ConnectWorker(t, name, facts, "boot-2", "0.1.0");
    }).IgnoreError();
  }
  PlacementExplanation why;
  EXPECT_EQ(ReasonOf(h.Create("a", [](CreateBunkerSpec& s) {
                        s.network_profile = NetworkProfile::kRegistry;
                      }, &why).status()),
            "WORKER_UNAVAILABLE");
  EXPECT_EQ(why.counts.at("network"), 1u);
}

TEST_F(Bunkers, ExplainAgreesWithCreateAndChangesNothing) {
  CreateBunkerSpec spec;
  spec.image = "a";
  const MemStore::Rows rows = h.store->rows();
  const auto explained =
      h.Do([&](Engine& e, Turn& t) { return e.ExplainPlacement(t, h.admin, spec); });
  ASSERT_TRUE(explained.ok());
  EXPECT_EQ(explained->eligible, 1u);
  EXPECT_EQ(explained->error_code, "");
  EXPECT_EQ(h.store->rows(), rows);
  spec.worker_labels = {{"metro", "fra"}};
  const auto refused =
      h.Do([&](Engine& e, Turn& t) { return e.ExplainPlacement(t, h.admin, spec); });
  EXPECT_EQ(refused->eligible, 0u);
  EXPECT_EQ(refused->error_code, "WORKER_UNAVAILABLE");
  EXPECT_EQ(refused->counts.at("labels"), 1u);
}

TEST_F(Bunkers, FinishedOnesAreForgottenInTheEnd) {
  const RowPtr<Bunker> row = Running();
  h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, row->id); });
  h.ObserveBunker(w1, row->id, BunkerStatus::kStopped);
  h.loop.Advance(absl::Hours(24 * 8));
  h.Settle();
  const auto gone = h.Do([&](Engine& e, Turn&) { return e.FindBunker(h.admin, row->id); });
  EXPECT_EQ(ReasonOf(gone.status()), "NOT_FOUND");
}

}  // namespace
}  // namespace bunker::controller
