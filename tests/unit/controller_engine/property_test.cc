// Seeded random lives: operators, tenants and workers do anything in any order, and the engine's
// invariants hold after every step; then everything heals, and it must converge.
#include "controller/engine/bridges.h"
#include "controller/engine/quotas.h"
#include "controller/engine/snapshots.h"
#include "controller/engine/worker_admin.h"
#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

class Life {
 public:
  explicit Life(uint64_t seed) : random_(seed) {
    for (int i = 0; i < 4; ++i) {
      workers_.push_back(h_.AddWorker("w" + std::to_string(i), {2000, 2048, 20'000}));
    }
    for (int i = 0; i < 3; ++i) {
      images_.push_back(h_.Register("i" + std::to_string(i), i == 2)->id);
    }
    for (int i = 0; i < 2; ++i) h_.MakeGroup("g" + std::to_string(i), {}, {});
    h_.Must([&](Engine& e, Turn& t) -> absl::StatusOr<RowPtr<QuotaAssignment>> {
      QuotaProfileSpec profile;
      profile.name = "p";
      profile.caps.max_concurrent_bunkers = kMaxBunkers;
      EXPECT_TRUE(e.quotas().CreateProfile(t, h_.admin, profile).ok());
      QuotaAssignmentSpec assignment;
      assignment.profile = "p";
      assignment.target_id = h_.admin.user_id;
      return e.quotas().Assign(t, h_.admin, assignment);
    });
  }

  // From a fleet that is up, with bunkers that run; snapshots come and go more often than else.
  void WarmUp() {
    for (const std::string& worker : workers_) Group(&Engine::AttachWorker, worker, 0);
    for (const std::string& image : images_) Group(&Engine::AttachImage, image, 0);
    faults_ = false;
    for (const std::string& worker : workers_) Work(worker);
    for (int i = 0; i < 4; ++i) Create();
    for (const std::string& worker : workers_) Work(worker);
    faults_ = true;
    steps_ = 40;
  }

  // From now on bunkers attach to bridges, too.
  void OpenSegments() { segments_ = true; }

  uint64_t snapshots_taken() const { return snapshots_taken_; }
  uint64_t copies_made() const { return copies_made_; }
  uint64_t attached() const { return attached_; }
  uint64_t names_refused() const { return names_refused_; }

  void Step() {
    switch (random_.Below(steps_)) {
      case 0: Group(&Engine::AttachImage, Pick(images_)); break;
      case 1: Group(&Engine::DetachImage, Pick(images_)); break;
      case 2: Group(&Engine::AttachWorker, Pick(workers_)); break;
      case 3: Group(&Engine::DetachWorker, Pick(workers_)); break;
      case 4: h_.Run([&](Engine& e, Turn& t) {
                e.Warm(t, h_.admin, Pick(images_)).status().IgnoreError();
              });
              break;
      case 5:
      case 6: Create(); break;
      case 7: Delete(); break;
      case 17:
      case 18: Change(); break;
      case 20: DropSnapshot(); break;
      case 21: CreateFromSnapshot(); break;
      case 8:
      case 9:
      case 10: Work(Pick(workers_)); break;
      case 11: h_.Advance(absl::Seconds(1 + random_.Below(40))); break;
      case 12: Toggle(Pick(workers_)); break;
      case 13: if (random_.Below(20) == 0) Restart(); break;
      case 14:
        Drain(Pick(workers_));
        break;
      case 15:
        Resume(Pick(workers_));
        break;
      case 16:
        if (random_.Below(6) == 0) Replace(random_.Below(workers_.size()));
        break;
      default:
        if (segments_ && random_.Below(2) == 0) Segment();
        if (random_.Below(2) == 0) Snap();
        Work(Pick(workers_));
        if (random_.Below(3) == 0) CreateFromSnapshot();
        break;
    }
  }

  void Heal() {
    for (const std::string& worker : workers_) {
      Resume(worker);
      h_.Connect(worker, {2000, 2048, 20'000});
    }
    for (const std::string& image : images_) {
      h_.Run([&](Engine& e, Turn& t) {
        e.Warm(t, h_.admin, image).status().IgnoreError();
      });
    }
    faults_ = false;
    for (int round = 0; round < 40; ++round) {
      for (const std::string& worker : workers_) Work(worker);
      h_.Advance(absl::Seconds(10));
    }
    for (const std::string& image : images_) {
      const WarmSummary warm = h_.WarmOf(image);
      EXPECT_EQ(warm.queued, 0u);
      EXPECT_EQ(warm.failed, 0u);
    }
    for (const auto& row : h_.engine->snapshots().List(h_.admin, "", {200, ""}).rows) {
      EXPECT_TRUE(row->status != SnapshotStatus::kCreating && !row->deleting) << row->id;
    }
    for (const auto& row : h_.engine->ListBunkers(h_.admin, {}, {200, ""}).rows) {
      EXPECT_TRUE(row->status == BunkerStatus::kRunning || row->status == BunkerStatus::kPaused ||
                  row->status == BunkerStatus::kStopped || row->status == BunkerStatus::kFailed)
          << NameOf(row->status) << " " << row->status_reason;
      if (!row->live()) {
        EXPECT_FALSE(row->room_held);
      }
    }
  }

 private:
  static constexpr uint64_t kMaxBunkers = 12;

  const std::string& Pick(const std::vector<std::string>& from) {
    return from[random_.Below(from.size())];
  }

  template <typename Method>
  void Group(Method method, const std::string& member) {
    Group(method, member, random_.Below(2));
  }
  template <typename Method>
  void Group(Method method, const std::string& member, uint64_t number) {
    const std::string group = "g" + std::to_string(number);
    h_.Run([&](Engine& e, Turn& t) {
      EXPECT_TRUE((e.*method)(t, h_.admin, group, member).ok());
    });
  }

  void Create() {
    CreateBunkerSpec spec;
    spec.image = Pick(images_);
    spec.cpu_millicores = 50 + random_.Below(1000);
    spec.memory_mb = 64 + random_.Below(700);
    spec.disk_mb = 64 + random_.Below(4000);
    spec.lifecycle_mode = static_cast<LifecycleMode>(random_.Below(3));
    if (random_.Below(3) == 0) spec.on_idle = OnIdle::kPause;
    if (spec.lifecycle_mode != LifecycleMode::kEphemeral) spec.start = random_.Below(4) != 0;
    if (random_.Below(2) == 0) spec.idle_timeout_s = 1 + random_.Below(100);
    if (random_.Below(3) == 0) spec.replicas = random_.Below(4);
    const uint64_t count = 1 + spec.replicas.value_or(0);
    h_.Run([&](Engine& e, Turn& t) {
      const auto explained = e.ExplainPlacement(t, h_.admin, spec);
      ASSERT_TRUE(explained.ok());
      const uint64_t live = e.quotas().Applying(h_.admin.user_id)[0].usage.bunkers;
      PlacementExplanation why;
      const auto rows = e.CreateBunkers(t, h_.admin, spec, &why);
      if (live + count > kMaxBunkers) {
        EXPECT_EQ(ReasonOf(rows.status()), "BUNKER_QUOTA_EXCEEDED");
        return;
      }
      EXPECT_EQ(rows.ok(), explained->error_code.empty()) << rows.status();
      if (rows.ok()) {
        EXPECT_EQ(rows->size(), count);
      } else if (explained->eligible == 0) {
        EXPECT_EQ(ReasonOf(rows.status()), explained->error_code);
      }
    });
    CheckRoom();
  }

  void Drain(const std::string& worker) {
    DrainSpec spec;
    if (random_.Below(2) == 0) {
      spec.deadline = absl::Seconds(random_.Below(30));
      spec.then = DrainThen::kStop;
    }
    h_.Must([&](Engine& e, Turn& t) { return e.worker_admin().Drain(t, h_.admin, worker, spec); });
  }

  void Resume(const std::string& worker) {
    h_.Must([&](Engine& e, Turn& t) { return e.worker_admin().Resume(t, h_.admin, worker); });
  }

  // By force, and another one comes in its place.
  void Replace(size_t i) {
    h_.Must([&](Engine& e, Turn& t) {
      return e.worker_admin().Remove(t, h_.admin, workers_[i], /*force=*/true);
    });
    h_.heartbeats.erase(workers_[i]);
    workers_[i] = h_.AddWorker("r" + std::to_string(++replaced_), {2000, 2048, 20'000});
  }

  void CheckRoom() {
    for (const std::string& worker : workers_) {
      const auto view = h_.Do([&](Engine& e, Turn&) { return e.FindWorker(h_.admin, worker); });
      EXPECT_LE(view->allocated.cpu_millicores, view->room.cpu_millicores);
      EXPECT_LE(view->allocated.memory_mb, view->room.memory_mb);
      EXPECT_LE(view->allocated.disk_mb, view->room.disk_mb);
    }
  }

  void Delete() {
    const auto page = h_.engine->ListBunkers(h_.admin, {}, {50, ""});
    if (page.rows.empty()) return;
    const std::string id = page.rows[random_.Below(page.rows.size())]->id;
    h_.Run([&](Engine& e, Turn& t) {
      EXPECT_TRUE(e.DeleteBunker(t, h_.admin, id).ok());
    });
  }

  // Somebody stops, starts, pauses or resumes something, whatever it is at.
  void Change() {
    const auto page = h_.engine->ListBunkers(h_.admin, {}, {50, ""});
    if (page.rows.empty()) return;
    const std::string id = page.rows[random_.Below(page.rows.size())]->id;
    constexpr decltype(&Engine::StopKeeping) kSteps[] = {
        &Engine::StopKeeping, &Engine::StartAgain, &Engine::RestartBunker, &Engine::PauseBunker,
        &Engine::ResumeBunker};
    const auto step = kSteps[random_.Below(std::size(kSteps))];
    h_.Run([&](Engine& e, Turn& t) {
      (e.*step)(t, h_.admin, id, std::nullopt).status().IgnoreError();
    });
    CheckRoom();
  }

  RowPtr<Snapshot> AnySnapshot() {
    const auto page = h_.engine->snapshots().List(h_.admin, "", {50, ""});
    return page.rows.empty() ? nullptr : page.rows[random_.Below(page.rows.size())];
  }

  void Snap() {
    const auto page = h_.engine->ListBunkers(h_.admin, {}, {50, ""});
    if (page.rows.empty()) return;
    const std::string id = page.rows[random_.Below(page.rows.size())]->id;
    const bool ends = random_.Below(3) == 0;
    h_.Run([&](Engine& e, Turn& t) {
      if (ends) {
        e.snapshots().TakeAndEnd(t, h_.admin, id, std::nullopt).status().IgnoreError();
      } else {
        e.snapshots().Take(t, h_.admin, id, {"", random_.Below(4) == 0}).status().IgnoreError();
      }
    });
  }

  // A worker tells of bridges, somebody opens or closes one, and bunkers are to attach to them.
  void Segment() {
    WorkerFacts facts;
    facts.capacity = {2000, 2048, 20'000};
    facts.arch = Arch::kX86_64;
    facts.network_profiles = {"isolated", "transit"};
    facts.bridges = {"br0", "br" + std::to_string(random_.Below(2))};
    h_.ConnectWith(Pick(workers_), facts);
    for (int i = 0; i < 2; ++i) {
      h_.Run([&](Engine& e, Turn& t) {
        const std::string name = "br" + std::to_string(i);
        e.bridges().Create(t, h_.admin, {name, Scope::kTenant, {}, {}}).status().IgnoreError();
      });
    }
    const auto open = h_.engine->bridges().List(h_.admin, {200, ""}).rows;
    if (!open.empty() && random_.Below(4) == 0) {
      const std::string id = open[random_.Below(open.size())]->id;
      h_.Run([&](Engine& e, Turn& t) {
        e.bridges().Delete(t, h_.admin, id).IgnoreError();
      });
    }
    for (int i = 0; i < 3; ++i) Attach();
  }

  void Attach() {
    CreateBunkerSpec spec;
    spec.image = Pick(images_);
    spec.cpu_millicores = 50;
    spec.memory_mb = 64;
    spec.lifecycle_mode = static_cast<LifecycleMode>(random_.Below(3));
    spec.network_profile = NetworkProfile::kTransit;
    for (uint64_t i = 0, cards = 1 + random_.Below(2); i < cards; ++i) {
      BunkerInterface card;
      card.if_name = "eth" + std::to_string(i);
      card.bridge_name = "br" + std::to_string(i);
      if (random_.Below(2) == 0) card.mac = "02:00:00:00:00:0" + std::to_string(random_.Below(2));
      if (random_.Below(2) == 0)
        card.ipv4 = "192.0.2." + std::to_string(1 + random_.Below(2)) + "/24";
      spec.interfaces.push_back(card);
    }
    h_.Run([&](Engine& e, Turn& t) {
      const auto explained = e.ExplainPlacement(t, h_.admin, spec);
      const auto made = e.CreateBunker(t, h_.admin, spec, nullptr);
      if (!explained.ok()) {
        EXPECT_EQ(ReasonOf(made.status()), ReasonOf(explained.status()));
      }
      if (ReasonOf(made.status()) == "VALIDATION_ERROR") ++names_refused_;
      if (made.ok()) ++attached_;
    });
    CheckRoom();
  }

  void DropSnapshot() {
    const RowPtr<Snapshot> row = AnySnapshot();
    if (row == nullptr) return;
    h_.Run([&](Engine& e, Turn& t) {
      e.snapshots().Delete(t, h_.admin, row->id).status().IgnoreError();
    });
  }

  void CreateFromSnapshot() {
    const RowPtr<Snapshot> row = AnySnapshot();
    if (row == nullptr) return;
    CreateBunkerSpec spec;
    spec.snapshot = row->id;
    if (!row->memory) {  // whose form is its own
      spec.cpu_millicores = 50 + random_.Below(500);
      spec.memory_mb = 64 + random_.Below(300);
    }
    spec.lifecycle_mode = static_cast<LifecycleMode>(random_.Below(3));
    if (spec.lifecycle_mode != LifecycleMode::kEphemeral) spec.start = random_.Below(4) != 0;
    h_.Run([&](Engine& e, Turn& t) {
      const auto explained = e.ExplainPlacement(t, h_.admin, spec);
      const auto made = e.CreateBunker(t, h_.admin, spec, nullptr);
      EXPECT_EQ(explained.ok(), row->status == SnapshotStatus::kReady && !row->deleting);
      if (made.ok()) {
        ++copies_made_;
        EXPECT_TRUE(explained->error_code.empty());
        EXPECT_EQ((*made)->worker_id, row->worker_id);
      }
    });
    CheckRoom();
  }

  void WorkOnSnapshot(const std::string& worker, const SnapshotAssignment& row) {
    SnapshotObservation seen;
    seen.snapshot_id = row.snapshot_id;
    using Status = SnapshotObservation::Status;
    seen.status = row.gone ? Status::kGone : Status::kReady;
    seen.size_bytes = (1 + random_.Below(64)) << 20;
    if (!row.gone && !row.expected) ++snapshots_taken_;
    if (!row.gone && faults_ && random_.Below(4) == 0) {
      seen.status = Status::kFailed;
      seen.error_code = "DISK_FULL";
    }
    h_.Run([&](Engine& e, Turn& t) {
      e.OnObservation(t, worker, {SnapshotRowName(row.snapshot_id), ++h_.versions, seen});
    });
  }

  // A worker does something about each of its rows.
  void Work(const std::string& worker) {
    if (!h_.heartbeats[worker]) return;
    std::vector<DesiredRowPtr> rows;
    for (const auto& [key, row] : h_.desired) {
      if (row->worker_id == worker) rows.push_back(row);
    }
    for (const DesiredRowPtr& row : rows) {
      if (faults_ && random_.Below(3) == 0) continue;
      if (const auto* image = std::get_if<ImageAssignment>(&row->row)) {
        WorkOnImage(worker, *image);
      } else if (const auto* snapshot = std::get_if<SnapshotAssignment>(&row->row)) {
        WorkOnSnapshot(worker, *snapshot);
      } else {
        WorkOnBunker(worker, std::get<BunkerAssignment>(row->row));
      }
    }
  }

  void WorkOnImage(const std::string& worker, const ImageAssignment& row) {
    const auto resolve = [](ImageObservation& seen) { Harness::Resolve(seen); };
    switch (faults_ ? random_.Below(4) : 2) {
      case 0: h_.ObserveImage(worker, row.image_id, CacheStatus::kBuilding); break;
      case 1: h_.ObserveImage(worker, row.image_id, CacheStatus::kBuilding, resolve); break;
      case 2: h_.ObserveImage(worker, row.image_id, CacheStatus::kReady, resolve); break;
      case 3:
        h_.ObserveImage(worker, row.image_id, CacheStatus::kFailed, [&](ImageObservation& seen) {
          seen.error_code = "REGISTRY_UNREACHABLE";
          seen.retryable = random_.Below(2) == 0;
        });
        break;
    }
  }

  void WorkOnBunker(const std::string& worker, const BunkerAssignment& row) {
    if (row.stopped) {
      h_.ObserveBunker(worker, row.bunker_id, BunkerStatus::kStopped,
                       [&](BunkerObservation& seen) { seen.disk_kept = row.keep_disk; });
      return;
    }
    const auto entry = h_.Entry(row.image_id, worker);
    if (entry == nullptr || entry->status != CacheStatus::kReady) return;
    const bool fails = faults_ && random_.Below(5) == 0;
    h_.ObserveBunker(worker, row.bunker_id,
                     fails        ? BunkerStatus::kFailed
                     : row.paused ? BunkerStatus::kPaused
                                  : BunkerStatus::kRunning,
                     [&](BunkerObservation& seen) { seen.disk_kept = fails && row.keep_disk; });
  }

  void Toggle(const std::string& worker) {
    if (h_.heartbeats[worker]) {
      h_.Silence(worker);
    } else {
      h_.Connect(worker, {2000, 2048, 20'000}, Arch::kX86_64,
                 random_.Below(4) == 0 ? "boot-2" : "boot-1");
    }
  }

  // The process ends and begins anew on what was durable.
  void Restart() {
    const MemStore::Rows rows = h_.store->rows();
    EngineOptions options;
    auto engine = std::make_unique<Engine>(options, h_.rng);
    MemStore probe(rows, false);
    ASSERT_TRUE(engine->Load(probe, h_.loop.Now()).ok());
    const absl::Status status = engine->CheckInvariants();
    ASSERT_TRUE(status.ok()) << status;
    // The same rows, byte for byte, but for the boot counter.
    MemStore::Rows after = probe.rows();
    after.erase({Noun::kMeta, "boot_counter"});
    MemStore::Rows before = rows;
    before.erase({Noun::kMeta, "boot_counter"});
    EXPECT_EQ(after, before);
  }

  SeededRng random_;
  Harness h_;
  std::vector<std::string> workers_;
  std::vector<std::string> images_;
  bool faults_ = true;
  bool segments_ = false;
  int replaced_ = 0;
  uint64_t steps_ = 23;
  uint64_t snapshots_taken_ = 0;
  uint64_t copies_made_ = 0;
  uint64_t attached_ = 0;
  uint64_t names_refused_ = 0;
};

TEST(EngineProperty, InvariantsHoldThroughRandomLivesAndAllConverges) {
  for (uint64_t seed = 1; seed <= 25; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Life life(seed);
    for (int step = 0; step < 120; ++step) {
      life.Step();
      if (testing::Test::HasFailure()) FAIL() << "step " << step;
    }
    life.Heal();
    if (testing::Test::HasFailure()) return;
  }
}

TEST(EngineProperty, SnapshotsComeAndGoInARunningFleet) {
  uint64_t taken = 0;
  uint64_t copies = 0;
  for (uint64_t seed = 1; seed <= 15; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Life life(seed);
    life.WarmUp();
    for (int step = 0; step < 120; ++step) {
      life.Step();
      if (testing::Test::HasFailure()) FAIL() << "step " << step;
    }
    life.Heal();
    if (testing::Test::HasFailure()) return;
    taken += life.snapshots_taken();
    copies += life.copies_made();
  }
  EXPECT_GT(taken, 50u);
  EXPECT_GT(copies, 20u);
}

TEST(EngineProperty, CardsComeAndGoInARunningFleet) {
  uint64_t attached = 0;
  uint64_t names_refused = 0;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Life life(seed);
    life.WarmUp();
    life.OpenSegments();
    for (int step = 0; step < 120; ++step) {
      life.Step();
      if (testing::Test::HasFailure()) FAIL() << "step " << step;
    }
    life.Heal();
    if (testing::Test::HasFailure()) return;
    attached += life.attached();
    names_refused += life.names_refused();
  }
  EXPECT_GT(attached, 20u);
  EXPECT_GT(names_refused, 10u);
}

}  // namespace
}  // namespace bunker::controller
