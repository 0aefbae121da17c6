// Seeded random lives: operators, tenants and workers do anything in any order, and the engine's
// invariants hold after every step; then everything heals, and it must converge.
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
  }

  void Step() {
    switch (random_.Below(14)) {
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
      case 8:
      case 9:
      case 10: Work(Pick(workers_)); break;
      case 11: h_.Advance(absl::Seconds(1 + random_.Below(40))); break;
      case 12: Toggle(Pick(workers_)); break;
      case 13: if (random_.Below(20) == 0) Restart(); break;
    }
  }

  void Heal() {
    for (const std::string& worker : workers_) {
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
    for (const auto& row : h_.engine->ListBunkers(h_.admin, {}, {200, ""}).rows) {
      EXPECT_TRUE(row->status == BunkerStatus::kRunning ||
                  row->status == BunkerStatus::kStopped || row->status == BunkerStatus::kFailed)
          << NameOf(row->status) << " " << row->status_reason;
      if (!row->live()) {
        EXPECT_FALSE(row->room_held);
      }
    }
  }

 private:
  const std::string& Pick(const std::vector<std::string>& from) {
    return from[random_.Below(from.size())];
  }

  template <typename Method>
  void Group(Method method, const std::string& member) {
    const std::string group = "g" + std::to_string(random_.Below(2));
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
    if (random_.Below(2) == 0) spec.idle_timeout_s = 1 + random_.Below(100);
    h_.Run([&](Engine& e, Turn& t) {
      const auto explained = e.ExplainPlacement(t, h_.admin, spec);
      ASSERT_TRUE(explained.ok());
      PlacementExplanation why;
      const auto row = e.CreateBunker(t, h_.admin, spec, &why);
      EXPECT_EQ(row.ok(), explained->eligible > 0);
      if (!row.ok()) {
        EXPECT_EQ(ReasonOf(row.status()), explained->error_code);
      }
    });
    CheckRoom();
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
      h_.ObserveBunker(worker, row.bunker_id, BunkerStatus::kStopped);
      return;
    }
    const auto entry = h_.Entry(row.image_id, worker);
    if (entry == nullptr || entry->status != CacheStatus::kReady) return;
    h_.ObserveBunker(worker, row.bunker_id,
                     faults_ && random_.Below(5) == 0 ? BunkerStatus::kFailed
                                                      : BunkerStatus::kRunning);
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

}  // namespace
}  // namespace bunker::controller
