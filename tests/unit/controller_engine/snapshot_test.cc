// Snapshots: what the engine asks of the worker that has the disk, and what it makes of answers.
#include "controller/engine/snapshots.h"

#include "controller/engine/worker_admin.h"
#include "gmock/gmock.h"
#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

using Status = SnapshotObservation::Status;

class SnapshotTest : public testing::Test {
 protected:
  explicit SnapshotTest(EngineOptions options = {}) : h(options) {
    w1 = h.AddWorker("w1");
    image = h.Register("a");
    h.MakeGroup("g", {"a"}, {w1});
    h.MakeReady(w1, image->id);
  }
  std::string Running(LifecycleMode mode = LifecycleMode::kSession,
                      std::function<void(CreateBunkerSpec&)> edit = nullptr) {
    const auto row = h.Create("a", [&](CreateBunkerSpec& spec) {
      spec.lifecycle_mode = mode;
      if (edit) edit(spec);
    });
    EXPECT_TRUE(row.ok()) << row.status();
    h.ObserveBunker(w1, (*row)->id, BunkerStatus::kRunning);
    return (*row)->id;
  }
  absl::StatusOr<RowPtr<Snapshot>> Take(const std::string& bunker, const std::string& name = "") {
    return h.Do([&](Engine& e, Turn& t) { return e.snapshots().Take(t, h.admin, bunker, {name}); });
  }
  std::string Taken(const std::string& bunker, const std::string& name = "") {
    const auto row = Take(bunker, name);
    EXPECT_TRUE(row.ok()) << row.status();
    Observe((*row)->id, Status::kReady);
    return (*row)->id;
  }
  absl::StatusOr<RowPtr<Snapshot>> Delete(const std::string& ref) {
    return h.Do([&](Engine& e, Turn& t) { return e.snapshots().Delete(t, h.admin, ref); });
  }
  absl::StatusOr<RowPtr<Bunker>> TakeAndEnd(const std::string& bunker) {
    return h.Do([&](Engine& e, Turn& t) {
      return e.snapshots().TakeAndEnd(t, h.admin, bunker, std::nullopt);
    });
  }
  absl::StatusOr<RowPtr<Snapshot>> Find(const std::string& ref) {
    return h.Do([&](Engine& e, Turn&) { return e.snapshots().Find(h.admin, ref); });
  }
  absl::StatusOr<RowPtr<Bunker>> CreateFrom(const std::string& snapshot,
                                            std::function<void(CreateBunkerSpec&)> edit = nullptr,
                                            PlacementExplanation* why = nullptr) {
    return h.Create(
        "",
        [&](CreateBunkerSpec& spec) {
          spec.snapshot = snapshot;
          if (edit) edit(spec);
        },
        why);
  }
  void Observe(const std::string& id, Status status, const std::string& code = "",
               const std::string& worker = "") {
    SnapshotObservation seen;
    seen.snapshot_id = id;
    seen.status = status;
    if (status == Status::kReady) seen.size_bytes = 5 << 20;
    seen.error_code = code;
    seen.error_message = code.empty() ? "" : "because";
    h.Run([&](Engine& e, Turn& t) {
      e.OnObservation(t, worker.empty() ? w1 : worker, {SnapshotRowName(id), ++h.versions, seen});
    });
  }
  const SnapshotAssignment* Wanted(const std::string& id) {
    const auto it = h.desired.find(w1 + "/" + SnapshotRowName(id));
    return it == h.desired.end() ? nullptr : &std::get<SnapshotAssignment>(it->second->row);
  }
  uint64_t DiskTaken() {
    PlacementExplanation why;
    const auto refused = h.Create("a", [](CreateBunkerSpec& spec) { spec.disk_mb = 99'999; }, &why);
    EXPECT_FALSE(refused.ok());
    const std::string text = why.rows.front().shortfall;
    const size_t at = text.find(": ") + 2;
    return 100'000 - std::stoull(text.substr(at));
  }

  Harness h;
  std::string w1;
  RowPtr<Image> image;
};

TEST_F(SnapshotTest, IsCreatingUntilItsWorkerSaysOtherwise) {
  const std::string bunker = Running();
  const auto row = Take(bunker, "first");
  ASSERT_TRUE(row.ok()) << row.status();
  EXPECT_EQ((*row)->status, SnapshotStatus::kCreating);
  EXPECT_EQ((*row)->image_digest, kDigestA);
  EXPECT_EQ((*row)->worker_id, w1);
  const SnapshotAssignment* wanted = Wanted((*row)->id);
  ASSERT_NE(wanted, nullptr);
  EXPECT_EQ(wanted->bunker_id, bunker);
  EXPECT_FALSE(wanted->gone || wanted->expected);
  EXPECT_EQ(ReasonOf(Take(bunker).status()), "RESOURCE_IN_USE") << "one at a time";
  Observe((*row)->id, Status::kReady);
  const auto ready = Find("first");
  ASSERT_TRUE(ready.ok());
  EXPECT_EQ((*ready)->status, SnapshotStatus::kReady);
  EXPECT_EQ((*ready)->size_bytes, uint64_t{5} << 20);
  EXPECT_TRUE(Wanted((*row)->id)->expected);
  EXPECT_EQ(ReasonOf(Take(bunker, "first").status()), "SLUG_CONFLICT");
  const auto made = Take(bunker);
  ASSERT_TRUE(made.ok());
  EXPECT_EQ((*made)->name.rfind(h.Get(bunker)->name + "-", 0), 0u) << (*made)->name;
}

TEST_F(SnapshotTest, NeedsADiskWithSomethingOnIt) {
  const auto fresh = h.Create("a");
  EXPECT_EQ(ReasonOf(Take((*fresh)->id).status()), "BUNKER_NOT_RUNNING");
  const auto parked = h.Create("a", [](CreateBunkerSpec& spec) {
    spec.lifecycle_mode = LifecycleMode::kSession;
    spec.start = false;
  });
  EXPECT_EQ(ReasonOf(Take((*parked)->id).status()), "BUNKER_NOT_RUNNING");
  const std::string ended = Running(LifecycleMode::kEphemeral);
  h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, ended); });
  EXPECT_EQ(ReasonOf(Take(ended).status()), "BUNKER_NOT_RUNNING");
  const std::string stopped = Running();
  h.Must([&](Engine& e, Turn& t) { return e.StopKeeping(t, h.admin, stopped, std::nullopt); });
  h.ObserveBunker(w1, stopped, BunkerStatus::kStopped,
                  [](BunkerObservation& seen) { seen.disk_kept = true; });
  EXPECT_TRUE(Take(stopped).ok());
}

TEST_F(SnapshotTest, MemoryIsOfOneThatRunsAndBindsTheFormOfWhatIsMadeOfIt) {
  const auto with_memory = [&](const std::string& bunker) {
    return h.Do([&](Engine& e, Turn& t) {
      return e.snapshots().Take(t, h.admin, bunker, {"", true});
    });
  };
  const std::string stopped = Running();
  h.Must([&](Engine& e, Turn& t) { return e.StopKeeping(t, h.admin, stopped, std::nullopt); });
  h.ObserveBunker(w1, stopped, BunkerStatus::kStopped,
                  [](BunkerObservation& seen) { seen.disk_kept = true; });
  EXPECT_EQ(ReasonOf(with_memory(stopped).status()), "BUNKER_NOT_RUNNING");

  const std::string bunker = Running(LifecycleMode::kEphemeral, [](CreateBunkerSpec& spec) {
    spec.cpu_millicores = 1500;
    spec.memory_mb = 300;
  });
  const auto row = with_memory(bunker);
  ASSERT_TRUE(row.ok()) << row.status();
  EXPECT_TRUE(Wanted((*row)->id)->memory);
  EXPECT_EQ((*row)->charged_bytes(), (uint64_t{(*row)->disk_mb} + 300) << 20);
  Observe((*row)->id, Status::kReady);

  const auto refused = [&](std::function<void(CreateBunkerSpec&)> edit) {
    return std::string(CreateFrom((*row)->id, std::move(edit)).status().message());
  };
  using testing::HasSubstr;
  EXPECT_THAT(refused([](CreateBunkerSpec& spec) { spec.memory_mb = 512; }),
              HasSubstr("memory_mb"));
  EXPECT_THAT(refused([](CreateBunkerSpec& spec) { spec.cpu_millicores = 2500; }),
              HasSubstr("cpu_millicores"));
  EXPECT_THAT(refused([](CreateBunkerSpec& spec) { spec.main = MainProgram(); }),
              HasSubstr("main"));
  EXPECT_THAT(refused([](CreateBunkerSpec& spec) {
                spec.network_profile = NetworkProfile::kUnrestricted;
              }),
              HasSubstr("network_profile"));

  const auto made = CreateFrom((*row)->id, [](CreateBunkerSpec& spec) {
    spec.lifecycle_mode = LifecycleMode::kSession;
    spec.cpu_millicores = 1100;
  });
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ((*made)->memory_mb, 300u);
  const auto assigned = [&] {
    return std::get<BunkerAssignment>(h.desired.at(w1 + "/" + BunkerRowName((*made)->id))->row);
  };
  EXPECT_TRUE(assigned().snapshot_memory);
  h.ObserveBunker(w1, (*made)->id, BunkerStatus::kRunning);
  h.Must([&](Engine& e, Turn& t) { return e.StopKeeping(t, h.admin, (*made)->id, std::nullopt); });
  h.ObserveBunker(w1, (*made)->id, BunkerStatus::kStopped,
                  [](BunkerObservation& seen) { seen.disk_kept = true; });
  h.Must([&](Engine& e, Turn& t) { return e.StartAgain(t, h.admin, (*made)->id, std::nullopt); });
  EXPECT_FALSE(assigned().snapshot_memory) << "its disk has gone on since";
}

TEST_F(SnapshotTest, AWorkerThatIsAwayIsNotAskedAndADeadlineEndsTheWait) {
  const std::string bunker = Running();
  const auto row = Take(bunker);
  h.Silence(w1);
  h.Advance(absl::Seconds(40));
  EXPECT_EQ((*Find((*row)->id))->status, SnapshotStatus::kCreating);
  EXPECT_EQ(ReasonOf(Take(bunker).status()), "WORKER_UNAVAILABLE");
  h.Advance(absl::Minutes(10));
  const auto late = *Find((*row)->id);
  EXPECT_EQ(late->status, SnapshotStatus::kFailed);
  EXPECT_EQ(late->error_code, "SNAPSHOT_TIMEOUT");
  EXPECT_NE(late->error_message.find("offline"), std::string::npos) << late->error_message;
  EXPECT_TRUE(Wanted(late->id)->gone) << "it may be there after all";
  h.Connect(w1);
  Observe(late->id, Status::kReady);
  EXPECT_EQ((*Find(late->id))->status, SnapshotStatus::kFailed) << "a failure is final";
  Observe(late->id, Status::kGone);
  EXPECT_EQ(Wanted(late->id), nullptr);
  EXPECT_TRUE(Find(late->id).ok()) << "its row says why until somebody deletes it";
  EXPECT_TRUE(Delete(late->id).ok());
  EXPECT_EQ(ReasonOf(Find(late->id).status()), "NOT_FOUND");
}

TEST_F(SnapshotTest, AFailureSaysWhyAndLeavesNothing) {
  const auto row = Take(Running());
  Observe((*row)->id, Status::kFailed, "DISK_FULL");
  const auto failed = *Find((*row)->id);
  EXPECT_EQ(failed->status, SnapshotStatus::kFailed);
  EXPECT_EQ(failed->error_code, "DISK_FULL");
  EXPECT_EQ(failed->error_message, "because");
  EXPECT_EQ(Wanted(failed->id), nullptr);
  EXPECT_EQ(ReasonOf(CreateFrom(failed->id).status()), "VALIDATION_ERROR");
}

TEST_F(SnapshotTest, TheRowGoesWithTheFile) {
  const std::string id = Taken(Running(), "s");
  const auto marked = Delete("s");
  ASSERT_TRUE(marked.ok());
  EXPECT_TRUE((*marked)->deleting);
  EXPECT_TRUE(Wanted(id)->gone);
  EXPECT_TRUE(Delete("s").ok());
  EXPECT_EQ(ReasonOf(CreateFrom("s").status()), "RESOURCE_IN_USE");
  const uint64_t before = h.desired.at(w1 + "/" + SnapshotRowName(id))->version;
  h.Advance(absl::Seconds(61));
  EXPECT_GT(h.desired.at(w1 + "/" + SnapshotRowName(id))->version, before) << "it is told again";
  Observe(id, Status::kGone);
  EXPECT_EQ(ReasonOf(Find("s").status()), "NOT_FOUND");
  EXPECT_EQ(Wanted(id), nullptr);
}

TEST_F(SnapshotTest, ABunkerOfItGoesToItsHomeAlone) {
  const std::string id = Taken(Running(LifecycleMode::kSession,
                                       [](CreateBunkerSpec& spec) { spec.disk_mb = 2000; }));
  const std::string w2 = h.AddWorker("w2");
  h.MakeGroup("g2", {"a"}, {w2});
  h.MakeReady(w2, image->id);
  for (int i = 0; i < 4; ++i) {
    const auto copy = CreateFrom(id, [](CreateBunkerSpec& spec) { spec.cpu_millicores = 100; });
    ASSERT_TRUE(copy.ok()) << copy.status();
    EXPECT_EQ((*copy)->worker_id, w1);
    EXPECT_EQ((*copy)->image_id, image->id);
    EXPECT_EQ((*copy)->disk_mb, 2000u);
    EXPECT_EQ(h.BunkerRow(w1, (*copy)->id)->snapshot_id, id);
  }
  PlacementExplanation why;
  const auto refused = CreateFrom(
      id, [](CreateBunkerSpec& spec) { spec.cpu_millicores = 3900; }, &why);
  EXPECT_EQ(ReasonOf(refused.status()), "WORKER_UNAVAILABLE");
  ASSERT_EQ(why.rows.size(), 2u);
  EXPECT_EQ(why.counts["snapshot home"], 1u);
  EXPECT_EQ(why.counts["cpu"], 1u);
  const auto smaller = CreateFrom(id, [](CreateBunkerSpec& spec) { spec.disk_mb = 1999; });
  EXPECT_EQ(ReasonOf(smaller.status()), "VALIDATION_ERROR");
  const auto larger = CreateFrom(id, [](CreateBunkerSpec& spec) {
    spec.disk_mb = 3000;
    spec.cpu_millicores = 100;
  });
  ASSERT_TRUE(larger.ok());
  EXPECT_EQ((*larger)->disk_mb, 3000u);
  const auto both = CreateFrom(id, [](CreateBunkerSpec& spec) { spec.image = "a"; });
  EXPECT_EQ(ReasonOf(both.status()), "VALIDATION_ERROR");
}

TEST_F(SnapshotTest, IsInUseWhileABunkerAwaitsItsDisk) {
  const std::string id = Taken(Running());
  const auto copy = *CreateFrom(id);
  const auto parked = *CreateFrom(id, [](CreateBunkerSpec& spec) {
    spec.lifecycle_mode = LifecycleMode::kSession;
    spec.start = false;
  });
  EXPECT_EQ(ReasonOf(Delete(id).status()), "RESOURCE_IN_USE");
  h.ObserveBunker(w1, copy->id, BunkerStatus::kRunning);
  EXPECT_EQ(ReasonOf(Delete(id).status()), "RESOURCE_IN_USE") << "one has not begun yet";
  h.Must([&](Engine& e, Turn& t) { return e.StartAgain(t, h.admin, parked->id, std::nullopt); });
  h.ObserveBunker(w1, parked->id, BunkerStatus::kRunning);
  EXPECT_TRUE(Delete(id).ok());
}

TEST_F(SnapshotTest, ItsImageStaysOnTheWorkerWhateverBecomesOfIt) {
  const std::string bunker = Running(LifecycleMode::kEphemeral);
  const std::string id = Taken(bunker);
  h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, bunker); });
  h.ObserveBunker(w1, bunker, BunkerStatus::kStopped);
  h.Must([&](Engine& e, Turn& t) { return e.Deactivate(t, h.admin, image->id); });
  h.Must([&](Engine& e, Turn& t) { return e.DetachWorker(t, h.admin, "g", w1); });
  h.Advance(absl::Minutes(5));
  ASSERT_NE(h.ImageRow(w1, image->id), nullptr) << "the sweep took it";
  EXPECT_FALSE(h.ImageRow(w1, image->id)->expendable) << "nor may the worker drop it";
  EXPECT_EQ(ReasonOf(h.Create("a").status()), "IMAGE_INACTIVE");
  const auto copy = CreateFrom(id);
  ASSERT_TRUE(copy.ok()) << copy.status();
  h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, (*copy)->id); });
  h.ObserveBunker(w1, (*copy)->id, BunkerStatus::kStopped);
  EXPECT_TRUE(Delete(id).ok());
  Observe(id, Status::kGone);
  h.Advance(absl::Minutes(5));
  EXPECT_EQ(h.ImageRow(w1, image->id), nullptr) << "nothing needs it any more";
}

TEST_F(SnapshotTest, CountsOnItsWorkersDisk) {
  const std::string bunker = Running();
  const uint64_t before = DiskTaken();
  const auto row = Take(bunker);
  EXPECT_EQ(DiskTaken(), before + (*row)->disk_mb) << "it could become as large as the disk";
  Observe((*row)->id, Status::kReady);
  EXPECT_EQ(DiskTaken(), before + 5);
  EXPECT_TRUE(Delete((*row)->id).ok());
  EXPECT_EQ(DiskTaken(), before + 5) << "the file is there until the worker says otherwise";
  Observe((*row)->id, Status::kGone);
  EXPECT_EQ(DiskTaken(), before);
}

TEST_F(SnapshotTest, ADeleteWaitsForTheFinalSnapshot) {
  const std::string bunker = Running(LifecycleMode::kEphemeral);
  const auto ending = TakeAndEnd(bunker);
  ASSERT_TRUE(ending.ok()) << ending.status();
  const std::string last = (*ending)->final_snapshot_id;
  EXPECT_EQ((*ending)->status, BunkerStatus::kRunning);
  EXPECT_EQ((*ending)->status_reason, "FINAL_SNAPSHOT");
  EXPECT_EQ((*TakeAndEnd(bunker))->final_snapshot_id, last) << "repeatable";
  EXPECT_FALSE(h.BunkerRow(w1, bunker)->stopped);
  Observe(last, Status::kReady);
  EXPECT_TRUE(h.BunkerRow(w1, bunker)->stopped);
  EXPECT_EQ(h.Get(bunker)->status_reason, "DELETED");
  h.ObserveBunker(w1, bunker, BunkerStatus::kStopped);
  EXPECT_TRUE(h.Get(bunker)->terminated_at.has_value());
  EXPECT_TRUE(TakeAndEnd(bunker).ok()) << "legal in every status";
}

TEST_F(SnapshotTest, ABunkerWhoseFinalSnapshotFailsStays) {
  const std::string bunker = Running();
  const auto first = TakeAndEnd(bunker);
  Observe((*first)->final_snapshot_id, Status::kFailed, "DISK_FULL");
  RowPtr<Bunker> row = h.Get(bunker);
  EXPECT_EQ(row->status, BunkerStatus::kRunning);
  EXPECT_EQ(row->status_reason, "SNAPSHOT_FAILED");
  EXPECT_NE(row->status_message.find("DISK_FULL"), std::string::npos) << row->status_message;
  const auto second = TakeAndEnd(bunker);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_TRUE(Delete((*second)->final_snapshot_id).ok());
  row = h.Get(bunker);
  EXPECT_EQ(row->status_reason, "SNAPSHOT_FAILED");
  EXPECT_FALSE(row->stop_wanted);
}

TEST_F(SnapshotTest, WithoutADiskADeleteIsADelete) {
  const auto fresh = h.Create("a");
  const auto ended = TakeAndEnd((*fresh)->id);
  ASSERT_TRUE(ended.ok());
  EXPECT_TRUE((*ended)->stop_wanted);
  EXPECT_TRUE((*ended)->final_snapshot_id.empty());
}

TEST_F(SnapshotTest, ARemovedWorkerTakesItsSnapshotsWithItByForceAlone) {
  const std::string bunker = Running(LifecycleMode::kEphemeral);
  const std::string ready = Taken(bunker);
  const auto going = Take(bunker);
  Observe((*going)->id, Status::kReady);
  EXPECT_TRUE(Delete((*going)->id).ok());
  h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, bunker); });
  h.ObserveBunker(w1, bunker, BunkerStatus::kStopped);
  const auto remove = [&](bool force) {
    return h.Do([&](Engine& e, Turn& t) {
      return e.worker_admin().Remove(t, h.admin, w1, force);
    });
  };
  const auto refused = remove(false);
  EXPECT_EQ(ReasonOf(refused.status()), "RESOURCE_IN_USE");
  EXPECT_NE(std::string(refused.status().message()).find("2 snapshots"), std::string::npos);
  EXPECT_TRUE(remove(true).ok());
  EXPECT_EQ((*Find(ready))->error_code, "WORKER_REMOVED");
  EXPECT_EQ(ReasonOf(Find((*going)->id).status()), "NOT_FOUND");
  EXPECT_TRUE(Delete(ready).ok());
  EXPECT_EQ(ReasonOf(Find(ready).status()), "NOT_FOUND");
}

TEST_F(SnapshotTest, AWorkerIsToldToRemoveWhatNobodyKnows) {
  const std::string stranger = "snap_" + std::string(32, '5');
  Observe(stranger, Status::kReady);
  ASSERT_NE(Wanted(stranger), nullptr);
  EXPECT_TRUE(Wanted(stranger)->gone);
  Observe(stranger, Status::kGone);
  EXPECT_EQ(Wanted(stranger), nullptr);
}

TEST_F(SnapshotTest, OneThatVanishesFails) {
  const std::string id = Taken(Running());
  Observe(id, Status::kFailed, "SNAPSHOT_LOST");
  EXPECT_EQ((*Find(id))->status, SnapshotStatus::kFailed);
  EXPECT_EQ((*Find(id))->error_code, "SNAPSHOT_LOST");
}

TEST_F(SnapshotTest, OthersSeeThemAsTheySeeBunkers) {
  const std::string id = Taken(Running(), "mine");
  Caller peer = h.admin;
  peer.user_id = "usr_peer";
  peer.role = Role::kTenantUser;
  peer.sees_all_bunkers = peer.manages_all_bunkers = false;
  Caller viewer = peer;
  viewer.sees_all_bunkers = true;
  Caller foreign = viewer;
  foreign.tenant_id = "tnt_other";
  const auto find = [&](const Caller& caller, const std::string& ref) {
    return ReasonOf(
        h.Do([&](Engine& e, Turn&) { return e.snapshots().Find(caller, ref); }).status());
  };
  EXPECT_EQ(find(peer, id), "NOT_FOUND");
  EXPECT_EQ(find(viewer, "mine"), "");
  EXPECT_EQ(find(foreign, id), "NOT_FOUND");
  EXPECT_EQ(find(foreign, "mine"), "NOT_FOUND");
  for (const Caller& caller : {peer, foreign}) {
    EXPECT_EQ(ReasonOf(h.Do([&](Engine& e, Turn& t) {
                          return e.snapshots().Delete(t, caller, id);
                        }).status()),
              "NOT_FOUND");
  }
  EXPECT_EQ(ReasonOf(h.Do([&](Engine& e, Turn& t) {
                        return e.snapshots().Delete(t, viewer, id);
                      }).status()),
            "AUTHZ_PERMISSION_DENIED");
  const auto listed = [&](const Caller& caller, const std::string& bunker) {
    return h.Do([&](Engine& e, Turn&) {
              return e.snapshots().List(caller, bunker, {50, ""}).rows.size();
            });
  };
  EXPECT_EQ(listed(h.admin, ""), 1u);
  EXPECT_EQ(listed(h.admin, (*Find(id))->bunker_id), 1u);
  EXPECT_EQ(listed(h.admin, h.Get((*Find(id))->bunker_id)->name), 1u);
  EXPECT_EQ(listed(h.admin, "bnk_other"), 0u);
  EXPECT_EQ(listed(peer, ""), 0u);
}

class SnapshotCapTest : public SnapshotTest {
 protected:
  static EngineOptions Caps() {
    EngineOptions options;
    options.max_snapshots_per_tenant = 2;
    options.max_snapshot_bytes_per_tenant = uint64_t{1100} << 20;
    return options;
  }
  SnapshotCapTest() : SnapshotTest(Caps()) {}
};

TEST_F(SnapshotCapTest, TheTenantsCapNamesItselfAndWhatIsUsed) {
  const std::string bunker =
      Running(LifecycleMode::kSession, [](CreateBunkerSpec& spec) { spec.disk_mb = 600; });
  const std::string other =
      Running(LifecycleMode::kSession, [](CreateBunkerSpec& spec) { spec.disk_mb = 600; });
  const auto first = Take(bunker);
  ASSERT_TRUE(first.ok());
  const auto large = Take(other);
  EXPECT_EQ(ReasonOf(large.status()), "BUNKER_QUOTA_EXCEEDED");
  for (const char* word : {"1100 MiB", "600 MiB", "snapshots.mib_per_tenant"}) {
    EXPECT_NE(std::string(large.status().message()).find(word), std::string::npos)
        << large.status();
  }
  Observe((*first)->id, Status::kReady);
  ASSERT_TRUE(Take(other).ok()) << "what is ready counts for what it takes";
  const auto third = Take(bunker);
  EXPECT_EQ(ReasonOf(third.status()), "BUNKER_QUOTA_EXCEEDED");
  EXPECT_NE(std::string(third.status().message()).find("may have 2 snapshots"), std::string::npos)
      << third.status();
  EXPECT_EQ(ReasonOf(TakeAndEnd(bunker).status()), "BUNKER_QUOTA_EXCEEDED");
  EXPECT_FALSE(h.Get(bunker)->stop_wanted);
}

}  // namespace
}  // namespace bunker::controller
