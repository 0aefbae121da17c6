// Stop, start, pause, resume: what the engine asks of the worker, and what it makes of the answers.
#include "controller/engine/quotas.h"
#include "controller/engine/worker_admin.h"
#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

using Step = absl::StatusOr<RowPtr<Bunker>> (Engine::*)(Turn&, const Caller&, const std::string&,
                                                        std::optional<uint32_t>);

class Lifecycle : public testing::Test {
 protected:
  void SetUp() override {
    w1 = h.AddWorker("w1");
    image = h.Register("a");
    h.MakeGroup("g", {"a"}, {w1});
    h.MakeReady(w1, image->id);
  }
  std::string Running(LifecycleMode mode, std::function<void(CreateBunkerSpec&)> edit = nullptr) {
    const auto row = h.Create("a", [&](CreateBunkerSpec& spec) {
      spec.lifecycle_mode = mode;
      if (edit) edit(spec);
    });
    EXPECT_TRUE(row.ok()) << row.status();
    h.ObserveBunker(w1, (*row)->id, BunkerStatus::kRunning);
    return (*row)->id;
  }
  absl::StatusOr<RowPtr<Bunker>> Do(Step step, const std::string& id,
                                    std::optional<uint32_t> incarnation = std::nullopt) {
    return h.Do([&](Engine& e, Turn& t) { return (e.*step)(t, h.admin, id, incarnation); });
  }
  void ObserveEnd(const std::string& id, BunkerStatus status, const std::string& reason = "") {
    h.ObserveBunker(w1, id, status, [&](BunkerObservation& seen) {
      seen.disk_kept = true;
      seen.status_reason = reason;
    });
  }
  std::string Stopped(LifecycleMode mode = LifecycleMode::kSession,
                      std::function<void(CreateBunkerSpec&)> edit = nullptr) {
    const std::string id = Running(mode, std::move(edit));
    EXPECT_TRUE(Do(&Engine::StopKeeping, id).ok());
    ObserveEnd(id, BunkerStatus::kStopped);
    return id;
  }
  Resources Allocated() {
    return h.Do([&](Engine& e, Turn&) { return e.FindWorker(h.admin, w1); })->allocated;
  }

  Harness h;
  std::string w1;
  RowPtr<Image> image;
};

TEST_F(Lifecycle, StopFreesCpuAndMemoryOnceTheWorkerSaysSo) {
  const std::string id = Running(LifecycleMode::kSession);
  const Resources whole = Allocated();
  const auto stopping = Do(&Engine::StopKeeping, id);
  ASSERT_TRUE(stopping.ok()) << stopping.status();
  EXPECT_EQ((*stopping)->status, BunkerStatus::kStopping);
  const BunkerAssignment* row = h.BunkerRow(w1, id);
  EXPECT_TRUE(row->stopped && row->keep_disk && row->disk_expected);
  EXPECT_EQ(Allocated().memory_mb, whole.memory_mb);
  ObserveEnd(id, BunkerStatus::kStopped);
  const RowPtr<Bunker> stopped = h.Get(id);
  EXPECT_EQ(stopped->status, BunkerStatus::kStopped);
  EXPECT_FALSE(stopped->terminated_at.has_value());
  EXPECT_EQ(Allocated().cpu_millicores, 0u);
  EXPECT_EQ(Allocated().memory_mb, 0u);
  EXPECT_EQ(Allocated().disk_mb, whole.disk_mb);
  EXPECT_TRUE(Do(&Engine::StopKeeping, id).ok());
  const auto exec = h.Do([&](Engine& e, Turn& t) { return e.BeginExec(t, h.admin, id); });
  EXPECT_EQ(ReasonOf(exec.status()), "BUNKER_NOT_RUNNING");
}

TEST_F(Lifecycle, StartIsTheNextIncarnationOnTheSameWorker) {
  const std::string id = Stopped();
  const auto started = Do(&Engine::StartAgain, id);
  ASSERT_TRUE(started.ok()) << started.status();
  EXPECT_EQ((*started)->incarnation, 2u);
  EXPECT_EQ((*started)->status, BunkerStatus::kProvisioning);
  const BunkerAssignment* row = h.BunkerRow(w1, id);
  EXPECT_FALSE(row->stopped);
  EXPECT_TRUE(row->disk_expected);
  EXPECT_EQ(row->incarnation, 2u);
  h.ObserveBunker(w1, id, BunkerStatus::kRunning);
  EXPECT_EQ(h.Get(id)->status, BunkerStatus::kRunning);
  // News of the life before change nothing.
  h.ObserveBunker(w1, id, BunkerStatus::kStopped, [](BunkerObservation& seen) {
    seen.incarnation = 1;
    seen.disk_kept = true;
  });
  EXPECT_EQ(h.Get(id)->status, BunkerStatus::kRunning);
}

TEST_F(Lifecycle, AStartNeedsRoomAndAWorkerThatIsThere) {
  const std::string id = Stopped(LifecycleMode::kSession,
                                 [](CreateBunkerSpec& spec) { spec.memory_mb = 5000; });
  const std::string other = Running(LifecycleMode::kEphemeral,
                                    [](CreateBunkerSpec& spec) { spec.memory_mb = 5000; });
  EXPECT_EQ(ReasonOf(Do(&Engine::StartAgain, id).status()), "WORKER_UNAVAILABLE");
  h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, other); });
  h.ObserveBunker(w1, other, BunkerStatus::kStopped);
  h.Silence(w1);
  h.Advance(absl::Seconds(40));
  EXPECT_EQ(ReasonOf(Do(&Engine::StartAgain, id).status()), "WORKER_UNAVAILABLE");
  h.Connect(w1);
  EXPECT_TRUE(Do(&Engine::StartAgain, id).ok());
}

TEST_F(Lifecycle, AStaleIncarnationIsRefused) {
  const std::string id = Stopped();
  ASSERT_TRUE(Do(&Engine::StartAgain, id, 1).ok());
  for (const Step step : {&Engine::StopKeeping, &Engine::StartAgain, &Engine::RestartBunker,
                          &Engine::PauseBunker, &Engine::ResumeBunker}) {
    EXPECT_EQ(ReasonOf(Do(step, id, 1).status()), "STALE_INCARNATION");
  }
  EXPECT_EQ(ReasonOf(h.Do([&](Engine& e, Turn& t) {
                        return e.DeleteBunker(t, h.admin, id, 1);
                      }).status()),
            "STALE_INCARNATION");
}

TEST_F(Lifecycle, EphemeralOnesAreNeitherStoppedNorStarted) {
  const std::string id = Running(LifecycleMode::kEphemeral);
  for (const Step step : {&Engine::StopKeeping, &Engine::StartAgain, &Engine::RestartBunker}) {
    EXPECT_EQ(ReasonOf(Do(step, id).status()), "LIFECYCLE_MODE_DENIED");
  }
  const auto unstarted = h.Create("a", [](CreateBunkerSpec& spec) { spec.start = false; });
  EXPECT_EQ(ReasonOf(unstarted.status()), "LIFECYCLE_MODE_DENIED");
}

TEST_F(Lifecycle, RestartIsOneStepThatHoldsTheRoom) {
  const std::string id = Running(LifecycleMode::kPersistent);
  const Resources whole = Allocated();
  const auto row = Do(&Engine::RestartBunker, id);
  ASSERT_TRUE(row.ok());
  EXPECT_EQ((*row)->incarnation, 2u);
  EXPECT_TRUE(Allocated() == whole);
  h.ObserveBunker(w1, id, BunkerStatus::kRunning);
  EXPECT_EQ(h.Get(id)->status, BunkerStatus::kRunning);
}

TEST_F(Lifecycle, PauseAndResumeFollowTheWorker) {
  const std::string id = Running(LifecycleMode::kEphemeral);
  const Resources whole = Allocated();
  ASSERT_TRUE(Do(&Engine::PauseBunker, id).ok());
  EXPECT_TRUE(h.BunkerRow(w1, id)->paused);
  EXPECT_EQ(h.Get(id)->status, BunkerStatus::kRunning);
  h.ObserveBunker(w1, id, BunkerStatus::kPaused);
  EXPECT_EQ(h.Get(id)->status, BunkerStatus::kPaused);
  EXPECT_TRUE(Allocated() == whole);
  ASSERT_TRUE(Do(&Engine::ResumeBunker, id).ok());
  EXPECT_FALSE(h.BunkerRow(w1, id)->paused);
  h.ObserveBunker(w1, id, BunkerStatus::kRunning);
  EXPECT_EQ(h.Get(id)->status, BunkerStatus::kRunning);
}

TEST_F(Lifecycle, ItsLifetimeRunsOnWhileItIsPaused) {
  const std::string id = Running(LifecycleMode::kSession,
                                 [](CreateBunkerSpec& spec) { spec.max_lifetime_s = 100; });
  ASSERT_TRUE(Do(&Engine::PauseBunker, id).ok());
  h.ObserveBunker(w1, id, BunkerStatus::kPaused);
  h.Advance(absl::Seconds(101));
  const RowPtr<Bunker> row = h.Get(id);
  EXPECT_EQ(row->status, BunkerStatus::kStopping);
  EXPECT_EQ(row->status_reason, "MAX_LIFETIME");
  EXPECT_FALSE(h.BunkerRow(w1, id)->keep_disk);
}

TEST_F(Lifecycle, AStoppedOneEndsAtItsMaximumLifetime) {
  const std::string id = Stopped(LifecycleMode::kSession,
                                 [](CreateBunkerSpec& spec) { spec.max_lifetime_s = 100; });
  h.Advance(absl::Seconds(101));
  EXPECT_EQ(h.Get(id)->status, BunkerStatus::kStopping);
  ObserveEnd(id, BunkerStatus::kStopped);  // of before: the disk is still there
  EXPECT_TRUE(h.Get(id)->live());
  h.ObserveBunker(w1, id, BunkerStatus::kStopped);
  EXPECT_EQ(h.Get(id)->status, BunkerStatus::kStopped);
  EXPECT_FALSE(h.Get(id)->live());
  EXPECT_EQ(Allocated().disk_mb, 0u);
}

TEST_F(Lifecycle, IdleStopsOrPausesWhatCanBe) {
  const auto idle = [](CreateBunkerSpec& spec) { spec.idle_timeout_s = 10; };
  const std::string session = Running(LifecycleMode::kSession, idle);
  const std::string pausing = Running(LifecycleMode::kEphemeral, [&](CreateBunkerSpec& spec) {
    idle(spec);
    spec.on_idle = OnIdle::kPause;
  });
  h.Advance(absl::Seconds(11));
  EXPECT_EQ(h.Get(session)->status, BunkerStatus::kStopping);
  EXPECT_TRUE(h.BunkerRow(w1, session)->keep_disk);
  EXPECT_TRUE(h.BunkerRow(w1, pausing)->paused);
  h.ObserveBunker(w1, pausing, BunkerStatus::kPaused);
  h.Advance(absl::Seconds(30));
  ASSERT_TRUE(Do(&Engine::ResumeBunker, pausing).ok());
  h.ObserveBunker(w1, pausing, BunkerStatus::kRunning);
  h.Advance(absl::Seconds(5));
  EXPECT_FALSE(h.BunkerRow(w1, pausing)->paused) << "its idle time began anew";
}

TEST_F(Lifecycle, AVmThatEndsByItselfLeavesItsDiskForAStart) {
  const std::string id = Running(LifecycleMode::kSession);
  ObserveEnd(id, BunkerStatus::kFailed, "VM_ENDED: killed by signal 9");
  RowPtr<Bunker> row = h.Get(id);
  EXPECT_EQ(row->status, BunkerStatus::kFailed);
  EXPECT_EQ(row->status_reason, "VM_ENDED");
  EXPECT_FALSE(row->terminated_at.has_value());
  EXPECT_EQ(Allocated().memory_mb, 0u);
  ASSERT_TRUE(Do(&Engine::StartAgain, id).ok());
  EXPECT_EQ(h.Get(id)->incarnation, 2u);
}

TEST_F(Lifecycle, AStartThatNeverComesFailsAndKeepsTheDisk) {
  const std::string id = Stopped();
  ASSERT_TRUE(Do(&Engine::StartAgain, id).ok());
  h.Advance(absl::Seconds(190));
  RowPtr<Bunker> row = h.Get(id);
  EXPECT_EQ(row->status, BunkerStatus::kFailed);
  EXPECT_EQ(row->status_reason, "BOOT_TIMEOUT");
  EXPECT_NE(Allocated().memory_mb, 0u) << "the VM may be there yet";
  EXPECT_TRUE(h.BunkerRow(w1, id)->stopped && h.BunkerRow(w1, id)->keep_disk);
  ObserveEnd(id, BunkerStatus::kStopped);
  EXPECT_EQ(Allocated().memory_mb, 0u);
  EXPECT_EQ(h.Get(id)->status, BunkerStatus::kFailed);
  EXPECT_TRUE(Do(&Engine::StartAgain, id).ok());
}

TEST_F(Lifecycle, AFirstStartThatFailsIsFinal) {
  const auto row = h.Create(
      "a", [](CreateBunkerSpec& spec) { spec.lifecycle_mode = LifecycleMode::kPersistent; });
  ASSERT_TRUE(row.ok());
  ObserveEnd((*row)->id, BunkerStatus::kFailed, "BOOT_FAILED: no");
  EXPECT_EQ(h.Get((*row)->id)->status, BunkerStatus::kFailed);
  EXPECT_FALSE(h.Get((*row)->id)->live());
  EXPECT_EQ(h.BunkerRow(w1, (*row)->id), nullptr);
}

TEST_F(Lifecycle, CreatedWithoutAStart) {
  const auto row = h.Create("a", [](CreateBunkerSpec& spec) {
    spec.lifecycle_mode = LifecycleMode::kSession;
    spec.start = false;
  });
  ASSERT_TRUE(row.ok()) << row.status();
  EXPECT_EQ((*row)->status, BunkerStatus::kStopped);
  EXPECT_EQ(Allocated().cpu_millicores, 0u);
  ObserveEnd((*row)->id, BunkerStatus::kStopped);
  ASSERT_TRUE(Do(&Engine::StartAgain, (*row)->id).ok());
  EXPECT_FALSE(h.BunkerRow(w1, (*row)->id)->disk_expected);
  h.ObserveBunker(w1, (*row)->id, BunkerStatus::kRunning);
  EXPECT_EQ(h.Get((*row)->id)->status, BunkerStatus::kRunning);
}

TEST_F(Lifecycle, AHostsRebootStartsPersistentOnesAgainAndFailsTheOthers) {
  const std::string persistent = Running(LifecycleMode::kPersistent);
  const std::string session = Running(LifecycleMode::kSession);
  const std::string ephemeral = Running(LifecycleMode::kEphemeral);
  const std::string parked = Stopped(LifecycleMode::kPersistent);
  h.Connect(w1, {4000, 8192, 100'000}, Arch::kX86_64, "boot-2");
  EXPECT_EQ(h.Get(persistent)->incarnation, 2u);
  EXPECT_EQ(h.Get(persistent)->status, BunkerStatus::kProvisioning);
  for (const std::string& id : {session, ephemeral}) {
    EXPECT_EQ(h.Get(id)->status, BunkerStatus::kFailed);
    EXPECT_EQ(h.Get(id)->status_reason, "HOST_REBOOTED");
    EXPECT_FALSE(h.Get(id)->live());
  }
  EXPECT_EQ(h.Get(parked)->status, BunkerStatus::kStopped);
  EXPECT_EQ(h.Get(parked)->incarnation, 1u);
}

TEST_F(Lifecycle, AStopOrAPauseThatIsNotConfirmedIsToldAgain) {
  const std::string id = Running(LifecycleMode::kSession);
  ASSERT_TRUE(Do(&Engine::PauseBunker, id).ok());
  uint64_t version = h.Get(id)->assignment_version;
  h.Advance(absl::Seconds(62));
  EXPECT_NE(h.Get(id)->assignment_version, version);
  ASSERT_TRUE(Do(&Engine::StopKeeping, id).ok());
  version = h.Get(id)->assignment_version;
  h.Advance(absl::Seconds(62));
  EXPECT_NE(h.Get(id)->assignment_version, version);
}

TEST_F(Lifecycle, AStartWhileItStopsNeedsNoRoomAnew) {
  const std::string id = Running(LifecycleMode::kSession);
  ASSERT_TRUE(Do(&Engine::StopKeeping, id).ok());
  const auto row = Do(&Engine::StartAgain, id);
  ASSERT_TRUE(row.ok());
  EXPECT_EQ((*row)->incarnation, 2u);
}

TEST_F(Lifecycle, DeleteOfAStoppedOneRemovesItsDisk) {
  const std::string id = Stopped();
  h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, id); });
  EXPECT_TRUE(h.BunkerRow(w1, id)->stopped);
  EXPECT_FALSE(h.BunkerRow(w1, id)->keep_disk);
  EXPECT_EQ(Allocated().memory_mb, 0u);
  h.ObserveBunker(w1, id, BunkerStatus::kStopped);
  EXPECT_FALSE(h.Get(id)->live());
  EXPECT_EQ(ReasonOf(Do(&Engine::StartAgain, id).status()), "BUNKER_NOT_RUNNING");
}

TEST_F(Lifecycle, UpdateCountsTheLifetimeAnew) {
  const std::string id = Running(LifecycleMode::kSession);
  UpdateBunkerSpec spec;
  spec.name = "renamed";
  spec.label_set = std::map<std::string, std::string>{{"a", "b"}};
  spec.max_lifetime_s = 50;
  const auto row = h.Do(
      [&](Engine& e, Turn& t) { return e.UpdateBunker(t, h.admin, id, std::nullopt, spec); });
  ASSERT_TRUE(row.ok()) << row.status();
  EXPECT_EQ(*(*row)->expires_at, (*row)->created_at + absl::Seconds(50));
  EXPECT_EQ(h.Get("renamed")->id, id);
  h.Advance(absl::Seconds(51));
  EXPECT_EQ(h.Get(id)->status_reason, "MAX_LIFETIME");
  const std::string other = Running(LifecycleMode::kEphemeral);
  EXPECT_EQ(ReasonOf(h.Do([&](Engine& e, Turn& t) {
                        return e.UpdateBunker(t, h.admin, other, std::nullopt, spec);
                      }).status()),
            "SLUG_CONFLICT");
}

TEST_F(Lifecycle, ADrainStopsThemAndEndsEphemeralOnes) {
  const std::string session = Running(LifecycleMode::kSession);
  const std::string ephemeral = Running(LifecycleMode::kEphemeral);
  h.Must([&](Engine& e, Turn& t) {
    return e.worker_admin().Drain(t, h.admin, w1, {absl::Seconds(5), DrainThen::kStop});
  });
  h.Advance(absl::Seconds(7));
  EXPECT_TRUE(h.BunkerRow(w1, session)->keep_disk);
  EXPECT_FALSE(h.BunkerRow(w1, ephemeral)->keep_disk);
  EXPECT_TRUE(h.BunkerRow(w1, session)->stopped && h.BunkerRow(w1, ephemeral)->stopped);
  ObserveEnd(session, BunkerStatus::kStopped);
  EXPECT_EQ(h.Get(session)->status_reason, "WORKER_DRAINED");
  EXPECT_TRUE(h.Get(session)->live());
}

}  // namespace
}  // namespace bunker::controller
