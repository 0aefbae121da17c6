#include "controller/store/row_codec.h"
#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

TEST(Workers, ATokenWorksOnceForItsNameInItsTime) {
  Harness h;
  const std::string token(64, 'e');
  const std::string credential(64, 'd');
  CreateJoinTokenSpec spec;
  spec.worker_name = "w1";
  spec.sha256 = token;
  ASSERT_TRUE(h.Do([&](Engine& e, Turn& t) { return e.CreateJoinToken(t, spec); }).ok());
  const auto join = [&](const std::string& secret, const std::string& name) {
    return h.Do([&](Engine& e, Turn& t) { return e.Join(t, secret, name, credential); });
  };
  EXPECT_EQ(ReasonOf(join(token, "w2").status()), "AUTH_TOKEN_INVALID");
  EXPECT_EQ(ReasonOf(join(std::string(64, '9'), "w1").status()), "AUTH_TOKEN_INVALID");
  const auto worker = join(token, "w1");
  ASSERT_TRUE(worker.ok()) << worker.status();
  EXPECT_EQ(ReasonOf(join(token, "w1").status()), "AUTH_TOKEN_INVALID");
  EXPECT_TRUE(h.engine->AuthenticateWorker(credential).ok());
  EXPECT_EQ(ReasonOf(h.engine->AuthenticateWorker(std::string(64, '8')).status()),
            "AUTH_TOKEN_INVALID");
  EXPECT_EQ(ReasonOf(h.engine->AuthenticateWorker("").status()), "AUTH_TOKEN_INVALID");

  // Joined again: the same worker, and the old credential is worth nothing.
  spec.sha256 = std::string(64, 'a');
  h.Must([&](Engine& e, Turn& t) { return e.CreateJoinToken(t, spec); });
  const auto again = h.Do([&](Engine& e, Turn& t) {
    return e.Join(t, spec.sha256, "w1", std::string(64, 'b'));
  });
  ASSERT_TRUE(again.ok());
  EXPECT_EQ((*again)->id, (*worker)->id);
  EXPECT_FALSE(h.engine->AuthenticateWorker(credential).ok());

  // Too late.
  spec.sha256 = std::string(64, 'c');
  spec.worker_name = "w3";
  h.Must([&](Engine& e, Turn& t) { return e.CreateJoinToken(t, spec); });
  h.loop.Advance(absl::Minutes(10));
  h.Settle();
  EXPECT_EQ(ReasonOf(join(spec.sha256, "w3").status()), "AUTH_TOKEN_INVALID");
  spec.ttl = absl::Minutes(11);
  EXPECT_EQ(ReasonOf(h.Do([&](Engine& e, Turn& t) {
                        return e.CreateJoinToken(t, spec);
                      }).status()),
            "VALIDATION_ERROR");
}

class Silent : public testing::Test {
 protected:
  void SetUp() override {
    w1 = h.AddWorker("w1");
    image = h.Register("a");
    h.MakeGroup("g", {"a"}, {w1});
    h.MakeReady(w1, image->id);
    row = *h.Create("a");
    h.ObserveBunker(w1, row->id, BunkerStatus::kRunning);
  }
  WorkerStatus Status() {
    return h.Do([&](Engine& e, Turn&) { return e.FindWorker(h.admin, w1); })->worker->status;
  }

  Harness h;
  std::string w1;
  RowPtr<Image> image;
  RowPtr<Bunker> row;
};

TEST_F(Silent, OfflineAfterThirtySecondsAndBackWithNothingLost) {
  h.Silence(w1);
  h.Advance(absl::Seconds(28));
  EXPECT_EQ(Status(), WorkerStatus::kOnline);
  h.Advance(absl::Seconds(3));
  EXPECT_EQ(Status(), WorkerStatus::kOffline);
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kRunning);
  EXPECT_EQ(h.Get(row->id)->status_reason, "WORKER_OFFLINE");
  PlacementExplanation why;
  EXPECT_EQ(ReasonOf(h.Create("a", nullptr, &why).status()), "WORKER_UNAVAILABLE");
  EXPECT_EQ(why.counts.at("status"), 1u);
  h.Connect(w1);
  EXPECT_EQ(Status(), WorkerStatus::kOnline);
  EXPECT_EQ(h.Get(row->id)->status_reason, "");
  EXPECT_FALSE(h.BunkerRow(w1, row->id)->stopped);
}

TEST_F(Silent, LostAfterFiveMinutesEphemeralOnesFailAndAreEndedOnReturn) {
  h.Silence(w1);
  h.Advance(absl::Seconds(302));
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kFailed);
  EXPECT_EQ(h.Get(row->id)->status_reason, "WORKER_LOST");
  const WorkerSession session = h.Connect(w1);
  bool stopped = false;
  for (const DesiredRowPtr& desired : session.desired) {
    const auto* bunker = std::get_if<BunkerAssignment>(&desired->row);
    if (bunker != nullptr && bunker->bunker_id == row->id) stopped = bunker->stopped;
  }
  EXPECT_TRUE(stopped);
  // Until it says so, its VM may be there: the room is not given away.
  const auto view = h.Do([&](Engine& e, Turn&) { return e.FindWorker(h.admin, w1); });
  EXPECT_EQ(view->allocated.memory_mb, 512u + 96u);
  h.ObserveBunker(w1, row->id, BunkerStatus::kStopped);
  EXPECT_EQ(h.Do([&](Engine& e, Turn&) { return e.FindWorker(h.admin, w1); })
                ->allocated.memory_mb,
            0u);
}

TEST_F(Silent, BackBeforeItIsLostNothingIsAndSessionsWaitForEver) {
  // Sessions can't be created yet: one from the store.
  MemStore::Rows rows = h.store->rows();
  Bunker session;
  std::string& body = rows.at({Noun::kBunker, row->id});
  ASSERT_TRUE(DecodeRow(body, &session).ok());
  session.lifecycle_mode = LifecycleMode::kSession;
  session.max_lifetime_s = 0;
  session.expires_at.reset();
  session.idle_timeout_s = 0;
  body = EncodeRow(session);
  Harness again({}, false, rows, h.loop.Now());
  again.Connect(w1);
  const RowPtr<Bunker> ephemeral =
      *again.Create("a", [](CreateBunkerSpec& s) { s.idle_timeout_s = 100'000; });
  again.ObserveBunker(w1, ephemeral->id, BunkerStatus::kRunning);
  const auto both = [&](BunkerStatus one, BunkerStatus other, const std::string& reason) {
    EXPECT_EQ(again.Get(ephemeral->id)->status, one);
    EXPECT_EQ(again.Get(row->id)->status, other);
    EXPECT_EQ(again.Get(row->id)->status_reason, reason);
  };
  again.Silence(w1);
  again.Advance(absl::Seconds(298));
  both(BunkerStatus::kRunning, BunkerStatus::kRunning, "WORKER_OFFLINE");
  again.Connect(w1);
  again.Advance(absl::Seconds(10));
  both(BunkerStatus::kRunning, BunkerStatus::kRunning, "");
  again.Silence(w1);
  again.Advance(absl::Hours(1));
  both(BunkerStatus::kFailed, BunkerStatus::kRunning, "WORKER_OFFLINE");
  EXPECT_EQ(again.Get(ephemeral->id)->status_reason, "WORKER_LOST");
  again.Connect(w1);
  EXPECT_TRUE(again.BunkerRow(w1, ephemeral->id)->stopped);
  EXPECT_FALSE(again.BunkerRow(w1, row->id)->stopped);
  both(BunkerStatus::kFailed, BunkerStatus::kRunning, "");
}

TEST_F(Silent, SilenceIsNotCountedFromBeforeTheControllersStart) {
  // The controller was down for an hour.
  Harness again({}, false, h.store->rows(), h.loop.Now() + absl::Hours(1));
  const auto find = [&] {
    return again.Do([&](Engine& e, Turn&) { return e.FindWorker(again.admin, w1); });
  };
  again.Advance(absl::Seconds(25));
  EXPECT_EQ(find()->worker->status, WorkerStatus::kOnline);
  again.Advance(absl::Seconds(10));
  EXPECT_EQ(find()->worker->status, WorkerStatus::kOffline);
  // But its bunker's maximum lifetime ran on.
  EXPECT_EQ(again.Get(row->id)->status, BunkerStatus::kStopping);
}

TEST_F(Silent, AHostRebootFailsWhatRan) {
  const RowPtr<Bunker> fresh = *h.Create("a");  // not seen by the worker yet
  h.Connect(w1, {4000, 8192, 100'000}, Arch::kX86_64, "boot-2");
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kFailed);
  EXPECT_EQ(h.Get(row->id)->status_reason, "HOST_REBOOTED");
  EXPECT_EQ(h.Get(fresh->id)->status, BunkerStatus::kProvisioning);
}

TEST_F(Silent, WhatAWorkerNoLongerNamesIsGone) {
  h.Run([&](Engine& e, Turn& t) {
    e.OnObservationsSynced(t, w1, {ImageRowName(image->id), BunkerRowName(row->id)});
  });
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kRunning);
  h.Run([&](Engine& e, Turn& t) { e.OnObservationsSynced(t, w1, {}); });
  EXPECT_EQ(h.Get(row->id)->status_reason, "VM_GONE");
  EXPECT_EQ(h.Entry(image->id, w1)->status, CacheStatus::kPending);
}

TEST_F(Silent, HeartbeatsWriteNothing) {
  const uint64_t commits = h.store->commits();
  for (int i = 0; i < 20; ++i) h.Advance(absl::Seconds(1));
  EXPECT_EQ(h.store->commits(), commits);
  EXPECT_EQ(h.engine->LastHeartbeat(w1), h.loop.Now());
}

}  // namespace
}  // namespace bunker::controller
