// The fan-out against a naive model that knows nothing of how the engine keeps up: after every
// change, of random sequences with restarts of the engine from its store, the stored rows are what
// the model makes of the stored images, groups and workers. And what a plan says is what happens.
//
// BUNKER_FANOUT_SEEDS=N runs N seeds in place of 6; BUNKER_FANOUT_SEED=S that one alone.
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "controller/store/row_codec.h"
#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

constexpr uint32_t kPerRegistry = 3;
constexpr uint32_t kPerWorker = 2;

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

EngineOptions Options() {
  EngineOptions options;
  options.work_limits.per_registry = kPerRegistry;
  options.work_limits.per_worker = kPerWorker;
  return options;
}

template <typename T>
std::vector<T> Rows(const MemStore& store, Noun noun) {
  std::vector<T> rows;
  for (const auto& [key, body] : store.rows()) {
    if (key.first != noun) continue;
    T row;
    EXPECT_TRUE(DecodeRow(body, &row).ok());
    rows.push_back(std::move(row));
  }
  return rows;
}

// ---- the naive model: the contract's sentences, one by one ------------------------------------

bool SameTenant(const Ownership& a, const Ownership& b) {
  return a.tenant_id == b.tenant_id;
}

// "An image reaches a worker if any group that the image's scope may use holds both."
bool MayHold(const Group& group, const Image& image) {
  switch (image.ownership.scope) {
    case Scope::kPlatform:
      return true;
    case Scope::kPartner:
      return group.ownership.scope != Scope::kPlatform &&
             group.ownership.partner_id == image.ownership.partner_id;
    case Scope::kTenant:
      return group.ownership.scope == Scope::kTenant &&
             SameTenant(group.ownership, image.ownership);
  }
  return false;
}

// "With auto_images every active image of the group's scope is a member without attaching."
bool Holds(const Group& group, const Image& image) {
  const bool own = group.ownership.scope == image.ownership.scope &&
                   SameTenant(group.ownership, image.ownership) &&
                   group.ownership.partner_id == image.ownership.partner_id;
  return group.image_ids.count(image.id) > 0 || (group.auto_images && own);
}

// "A tenant lands on its own, its partner's and platform workers marked shared."
bool MayUse(const Group& group, const Worker& worker) {
  const Ownership& owner = worker.ownership;
  switch (owner.scope) {
    case Scope::kPlatform:
      return worker.shared || group.ownership.scope == Scope::kPlatform;
    case Scope::kPartner:
      return group.ownership.scope != Scope::kPlatform &&
             group.ownership.partner_id == owner.partner_id;
    case Scope::kTenant:
      return group.ownership.scope == Scope::kTenant && SameTenant(group.ownership, owner);
  }
  return false;
}

bool InScope(const std::vector<Group>& groups, const Image& image, const Worker& worker) {
  if (!image.active) return false;
  for (const Group& group : groups) {
    if (Holds(group, image) && group.worker_ids.count(worker.id) > 0 && MayHold(group, image) &&
        MayUse(group, worker)) {
      return true;
    }
  }
  return false;
}

SkipReason Misfit(const Image& image, const Worker& worker) {
  if (image.arch != Arch::kUnspecified && image.arch != worker.facts.arch) {
    return SkipReason::kWrongArch;
  }
  const uint64_t disk = worker.disk.high_bytes > 0 ? worker.disk.high_bytes
                                                   : worker.facts.capacity.disk_mb * 1024 * 1024;
  const uint64_t layers = image.resolved ? image.resolved->layers_bytes : 0;
  const uint64_t needs = layers + (image.allocated_bytes > 0 ? image.allocated_bytes : layers);
  return needs > disk ? SkipReason::kTooLarge : SkipReason::kNone;
}

// ---- a random life ----------------------------------------------------------------------------

class Life {
 public:
  explicit Life(uint64_t seed) : random_(seed), h_(std::make_unique<Harness>(Options())) {
    admins_ = {h_->admin, h_->admin};
    admins_[1].tenant_id = "tnt_other";
    admins_[1].role = Role::kTenantAdmin;
    for (int i = 0; i < 5; ++i) {
      const Arch arch = i == 4 ? Arch::kAarch64 : Arch::kX86_64;
      const std::string id = h_->AddWorker("w" + std::to_string(i), kRoomy, arch);
      workers_.push_back(id);
      arch_[id] = arch;
      capacity_[id] = kRoomy;
    }
    for (int i = 0; i < 4; ++i) Register();
    for (int i = 0; i < 3; ++i) MakeGroup();
  }

  void Step() {
    switch (random_.Below(20)) {
      case 0:
      case 1:
        Member(&Engine::AttachImage, images_);
        break;
      case 2:
        Member(&Engine::DetachImage, images_);
        break;
      case 3:
      case 4:
        Member(&Engine::AttachWorker, workers_);
        break;
      case 5:
        Member(&Engine::DetachWorker, workers_);
        break;
      case 6:
        PatchAuto();
        break;
      case 7:
        if (random_.Below(3) == 0) Register();
        break;
      case 8:
        if (random_.Below(4) == 0) Deactivate();
        break;
      case 9:
        if (random_.Below(4) == 0) MakeGroup();
        break;
      case 10:
        if (random_.Below(4) == 0) DeleteGroup();
        break;
      case 11:
        Facts();
        break;
      case 12:
        Disk();
        break;
      case 13:
        Rejoin();
        break;
      case 14:
        Toggle();
        break;
      case 15:
        Lazy();
        break;
      case 16:
        h_->Advance(absl::Seconds(1 + random_.Below(150)));
        break;
      case 17:
        Warm();
        break;
      case 18:
        for (const std::string& worker : workers_) Work(worker);
        break;
      case 19:
        if (random_.Below(3) == 0) Restart();
        break;
    }
    Check();
  }

  // All workers are there and do what they are told, and time passes: nothing is left to do.
  void Heal() {
    calm_ = true;
    for (const std::string& worker : workers_)
      h_->Connect(worker, capacity_[worker], arch_[worker]);
    Warm();
    for (int round = 0; round < 60; ++round) {
      for (const std::string& worker : workers_) Work(worker);
      h_->Advance(absl::Seconds(7));
    }
    Check();
    for (const CacheEntry& entry : Rows<CacheEntry>(*h_->store, Noun::kCacheEntry)) {
      if (!entry.wanted || entry.skip != SkipReason::kNone) continue;
      EXPECT_EQ(entry.status, CacheStatus::kReady) << entry.key() << " " << entry.error_message;
    }
    for (const std::string& image : images_) {
      EXPECT_EQ(h_->WarmOf(image).queued, 0u);
    }
  }

  // After everything is done: a plan, the change itself, and everything done again.
  void PlanAndDo() {
    const std::vector<Group> groups = Rows<Group>(*h_->store, Noun::kGroup);
    if (groups.empty()) return;
    const Group& chosen = groups[random_.Below(groups.size())];
    const std::string group = chosen.id;
    GroupChange change;
    for (const Image& image : Rows<Image>(*h_->store, Noun::kImage)) {
      const uint64_t dice = random_.Below(3);
      if (dice == 0 && image.active && MayHold(chosen, image))
        change.add_images.push_back(image.id);
      if (dice == 1) change.remove_images.push_back(image.id);
    }
    for (const Worker& worker : Rows<Worker>(*h_->store, Noun::kWorker)) {
      const uint64_t dice = random_.Below(3);
      if (dice == 0 && MayUse(chosen, worker)) change.add_workers.push_back(worker.id);
      if (dice == 1) change.remove_workers.push_back(worker.id);
    }
    const auto before = h_->store->rows();
    const auto plan =
        h_->Do([&](Engine& e, Turn& t) { return e.PlanGroup(t, h_->admin, group, change); });
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(h_->store->rows(), before) << "a plan changed something";
    Apply(group, change);
    for (int round = 0; round < 60; ++round) {
      for (const std::string& worker : workers_) Work(worker);
      h_->Advance(absl::Seconds(7));
    }
    std::map<std::string, CacheEntry> after;
    for (const CacheEntry& entry : Rows<CacheEntry>(*h_->store, Noun::kCacheEntry)) {
      after[entry.key()] = entry;
    }
    for (const PlanRow& row : plan->rows) {
      // For which architecture it is, and how large, nobody knows yet.
      if (row.action == PlanAction::kPull && !row.image->resolved) continue;
      const auto it = after.find(CacheEntry::Key(row.image->id, row.worker->id));
      const bool there =
          it != after.end() && it->second.assigned && it->second.status == CacheStatus::kReady;
      const bool expected = row.action == PlanAction::kPull || row.action == PlanAction::kKeep;
      EXPECT_EQ(there, expected) << NameOf(row.action) << " " << row.reason << " "
                                 << row.image->name << " on " << row.worker->name;
    }
    rows_compared += plan->rows.size();
  }

  size_t rows_compared = 0;

 private:
  static constexpr Resources kRoomy = {4000, 8192, 100'000};

  const std::string& Pick(const std::vector<std::string>& from) {
    return from[random_.Below(from.size())];
  }

  void Register() {
    RegisterImageSpec spec;
    spec.name = "i" + std::to_string(next_++);
    spec.build_source.ref =
        "r" + std::to_string(random_.Below(2)) + ".example:5000/x/" + spec.name + ":1";
    spec.size_mib = 1024;
    spec.lazy_pull = random_.Below(4) == 0;
    const uint64_t scope = random_.Below(6);
    spec.scope = scope == 0 ? Scope::kPlatform : scope == 1 ? Scope::kPartner : Scope::kTenant;
    if (random_.Below(5) == 0) spec.arch = Arch::kX86_64;
    const Caller& caller = admins_[spec.scope == Scope::kTenant ? random_.Below(2) : 0];
    const auto row = h_->Do([&](Engine& e, Turn& t) { return e.RegisterImage(t, caller, spec); });
    ASSERT_TRUE(row.ok()) << row.status();
    images_.push_back((*row)->id);
    size_mib_[(*row)->id] = 50 + random_.Below(4) * 150;
  }

  void MakeGroup() {
    CreateGroupSpec spec;
    spec.name = "g" + std::to_string(next_++);
    spec.auto_images = random_.Below(4) == 0;
    const uint64_t scope = random_.Below(6);
    spec.scope = scope == 0 ? Scope::kPlatform : scope == 1 ? Scope::kPartner : Scope::kTenant;
    const Caller& caller = admins_[spec.scope == Scope::kTenant ? random_.Below(2) : 0];
    h_->Must([&](Engine& e, Turn& t) { return e.CreateGroup(t, caller, spec); });
  }

  std::string PickGroup() {
    const std::vector<Group> groups = Rows<Group>(*h_->store, Noun::kGroup);
    return groups.empty() ? "" : groups[random_.Below(groups.size())].id;
  }

  // Refusals (another owner's image, a worker that is not open) are part of it.
  template <typename Method>
  void Member(Method method, const std::vector<std::string>& members) {
    const std::string group = PickGroup();
    h_->Run([&](Engine& e, Turn& t) {
      (e.*method)(t, h_->admin, group, Pick(members)).status().IgnoreError();
    });
  }

  void Apply(const std::string& group, const GroupChange& change) {
    h_->Run([&](Engine& e, Turn& t) {
      const auto each = [&](const std::vector<std::string>& ids, auto method) {
        for (const auto& id : ids) EXPECT_TRUE((e.*method)(t, h_->admin, group, id).ok());
      };
      each(change.add_images, &Engine::AttachImage);
      each(change.remove_images, &Engine::DetachImage);
      each(change.add_workers, &Engine::AttachWorker);
      each(change.remove_workers, &Engine::DetachWorker);
    });
  }

  void PatchAuto() {
    PatchGroupSpec spec;
    spec.auto_images = random_.Below(2) == 0;
    const std::string group = PickGroup();
    h_->Run([&](Engine& e, Turn& t) {
      e.PatchGroup(t, h_->admin, group, spec).status().IgnoreError();
    });
  }

  void DeleteGroup() {
    const std::string group = PickGroup();
    h_->Run([&](Engine& e, Turn& t) { e.DeleteGroup(t, h_->admin, group).IgnoreError(); });
  }

  void Deactivate() {
    h_->Run([&](Engine& e, Turn& t) {
      e.Deactivate(t, h_->admin, Pick(images_)).status().IgnoreError();
    });
  }

  void Warm() {
    for (const std::string& image : images_) {
      h_->Run([&](Engine& e, Turn& t) { e.Warm(t, h_->admin, image).status().IgnoreError(); });
    }
  }

  // The host was given another disk, or another architecture's agent took its name.
  void Facts() {
    const std::string& worker = Pick(workers_);
    capacity_[worker] = {4000, 8192, random_.Below(3) == 0 ? 300u : 100'000u};
    if (random_.Below(6) == 0) {
      arch_[worker] = arch_[worker] == Arch::kX86_64 ? Arch::kAarch64 : Arch::kX86_64;
    }
    h_->Connect(worker, capacity_[worker], arch_[worker]);
  }

  void Disk() {
    const std::string& worker = Pick(workers_);
    if (!h_->heartbeats[worker]) return;
    DiskObservation disk;
    disk.capacity_bytes = (uint64_t{200} + random_.Below(3000)) << 20;
    disk.high_bytes = disk.capacity_bytes / 10 * 9;
    disk.low_bytes = disk.capacity_bytes / 10 * 8;
    h_->Run([&](Engine& e, Turn& t) {
      e.OnObservation(t, worker, {kDiskRowName, ++h_->versions, disk});
    });
  }

  // With a new token: shared, or not any more.
  void Rejoin() {
    const size_t which = random_.Below(workers_.size());
    const std::string token = "t" + std::string(58, '0') + std::to_string(10000 + next_++);
    h_->Run([&](Engine& e, Turn& t) {
      CreateJoinTokenSpec spec;
      spec.worker_name = "w" + std::to_string(which);
      spec.sha256 = token;
      spec.shared = random_.Below(2) == 0;
      EXPECT_TRUE(e.CreateJoinToken(t, spec).ok());
      EXPECT_TRUE(e.Join(t, token, spec.worker_name, token).ok());
    });
  }

  void Toggle() {
    const std::string& worker = Pick(workers_);
    if (h_->heartbeats[worker]) {
      h_->Silence(worker);
      h_->Advance(absl::Seconds(40));
    } else {
      h_->Connect(worker, capacity_[worker], arch_[worker]);
    }
  }

  // A bunker by lazy_pull, or the end of one.
  void Lazy() {
    const auto page = h_->engine->ListBunkers(h_->admin, {}, {50, ""});
    if (random_.Below(2) == 0 && !page.rows.empty()) {
      const RowPtr<Bunker> row = page.rows[random_.Below(page.rows.size())];
      h_->Run([&](Engine& e, Turn& t) {
        e.DeleteBunker(t, h_->admin, row->id).status().IgnoreError();
      });
      return;
    }
    CreateBunkerSpec spec;
    spec.image = Pick(images_);
    spec.cpu_millicores = 100;
    spec.memory_mb = 64;
    spec.disk_mb = 64;
    h_->Run([&](Engine& e, Turn& t) {
      e.CreateBunker(t, h_->admin, spec, nullptr).status().IgnoreError();
    });
  }

  void Work(const std::string& worker) {
    if (!h_->heartbeats[worker]) return;
    std::vector<DesiredRowPtr> rows;
    for (const auto& [key, row] : h_->desired) {
      if (row->worker_id == worker) rows.push_back(row);
    }
    for (const DesiredRowPtr& row : rows) {
      if (!calm_ && random_.Below(3) == 0) continue;
      if (const auto* image = std::get_if<ImageAssignment>(&row->row)) {
        WorkOnImage(worker, *image);
      } else if (const auto* bunker = std::get_if<BunkerAssignment>(&row->row)) {
        h_->ObserveBunker(worker, bunker->bunker_id,
                          bunker->stopped ? BunkerStatus::kStopped : BunkerStatus::kRunning);
      }
    }
    // What it was told to drop is gone.
    for (const CacheEntry& entry : Rows<CacheEntry>(*h_->store, Noun::kCacheEntry)) {
      if (entry.worker_id != worker || entry.assigned || entry.observation_version == 0) continue;
      if (!calm_ && random_.Below(3) == 0) continue;
      h_->Run([&](Engine& e, Turn& t) {
        e.OnObservationRemoved(t, worker, ImageRowName(entry.image_id));
      });
    }
  }

  void WorkOnImage(const std::string& worker, const ImageAssignment& row) {
    const auto fill = [&](ImageObservation& seen) {
      Harness::Resolve(seen);
      seen.resolved->layers_bytes = (size_mib_[row.image_id] / 3) << 20;
      seen.recipe_digest = "recipe-" + row.image_id;
      seen.allocated_bytes = size_mib_[row.image_id] << 20;
    };
    switch (calm_ ? 2 : random_.Below(6)) {
      case 0:
        h_->ObserveImage(worker, row.image_id, CacheStatus::kBuilding);
        break;
      case 1:
        h_->ObserveImage(worker, row.image_id, CacheStatus::kBuilding, fill);
        break;
      case 2:
      case 3:
        h_->ObserveImage(worker, row.image_id, CacheStatus::kReady, fill);
        break;
      case 4:
        h_->ObserveImage(worker, row.image_id, CacheStatus::kFailed, [&](ImageObservation& seen) {
          seen.error_code = "REGISTRY_UNREACHABLE";
          seen.retryable = random_.Below(2) == 0;
        });
        break;
      case 5:
        if (row.expendable) h_->ObserveImage(worker, row.image_id, CacheStatus::kEvicted);
        break;
    }
  }

  // A new process on what was durable: nothing of the cache rows changes by that.
  void Restart() {
    const auto before = Rows<CacheEntry>(*h_->store, Noun::kCacheEntry);
    const auto versions = h_->versions;
    auto alive = h_->heartbeats;
    h_ = std::make_unique<Harness>(Options(), false, h_->store->rows(),
                                   h_->loop.Now() + absl::Seconds(1));
    h_->versions = versions;
    const auto after = Rows<CacheEntry>(*h_->store, Noun::kCacheEntry);
    ASSERT_EQ(before.size(), after.size());
    for (size_t i = 0; i < before.size(); ++i) {
      EXPECT_EQ(EncodeRow(before[i]), EncodeRow(after[i]));
    }
    for (const auto& [worker, was] : alive) {
      if (was) h_->Connect(worker, capacity_[worker], arch_[worker]);
    }
  }

  void Check() {
    const auto images = Rows<Image>(*h_->store, Noun::kImage);
    const auto groups = Rows<Group>(*h_->store, Noun::kGroup);
    const auto workers = Rows<Worker>(*h_->store, Noun::kWorker);
    std::map<std::string, CacheEntry> entries;
    for (const CacheEntry& entry : Rows<CacheEntry>(*h_->store, Noun::kCacheEntry)) {
      entries[entry.key()] = entry;
    }
    for (const Image& image : images) {
      WarmSummary counted;
      for (const Worker& worker : workers) {
        const auto it = entries.find(CacheEntry::Key(image.id, worker.id));
        const CacheEntry* entry = it == entries.end() ? nullptr : &it->second;
        const bool scope = InScope(groups, image, worker);
        ASSERT_EQ(entry != nullptr && entry->in_scope(), scope)
            << image.name << " on " << worker.name;
        if (!scope) continue;
        const bool ready = entry->status == CacheStatus::kReady;
        SkipReason misfit = Misfit(image, worker);
        if (misfit == SkipReason::kTooLarge && ready) misfit = SkipReason::kNone;
        ASSERT_EQ(entry->wanted, misfit == SkipReason::kNone)
            << image.name << " on " << worker.name << " " << NameOf(entry->skip);
        if (misfit != SkipReason::kNone) {
          ASSERT_EQ(entry->skip, misfit);
        }
        if (ready) {
          ++counted.ready;
        } else if (entry->skip != SkipReason::kNone || worker.status != WorkerStatus::kOnline) {
          ++counted.skipped;
        } else if (entry->status == CacheStatus::kFailed) {
          ++counted.failed;
        } else {
          ++counted.queued;
        }
      }
      ASSERT_EQ(h_->WarmOf(image.id), counted) << image.name;
    }
    // Nobody works on what nobody wants, and what is wanted and has room is with its worker, or
    // waits for one that is away, or for a place.
    std::map<std::string, uint32_t> at_worker;
    for (const auto& [key, entry] : entries) {
      if (entry.assigned && entry.open()) ++at_worker[entry.worker_id];
    }
    for (const auto& [key, entry] : entries) {
      if (entry.skip != SkipReason::kNone) {
        ASSERT_FALSE(entry.assigned) << key;
      }
      if (entry.queue_tag != 0) {
        ASSERT_EQ(entry.status, CacheStatus::kPending) << key;
      }
    }
  }

  SeededRng random_;
  std::unique_ptr<Harness> h_;
  std::vector<Caller> admins_;
  std::vector<std::string> workers_;
  std::vector<std::string> images_;
  std::map<std::string, uint64_t> size_mib_;
  std::map<std::string, Arch> arch_;
  std::map<std::string, Resources> capacity_;
  int next_ = 0;
  bool calm_ = false;
};

TEST(FanOutProperty, TheStoredRowsAreTheModelsAfterEveryChange) {
  const uint64_t only = FromEnvironment("BUNKER_FANOUT_SEED", 0);
  const uint64_t first = only != 0 ? only : 1;
  const uint64_t last = only != 0 ? only : FromEnvironment("BUNKER_FANOUT_SEEDS", 6);
  for (uint64_t seed = first; seed <= last; ++seed) {
    SCOPED_TRACE("BUNKER_FANOUT_SEED=" + std::to_string(seed));
    Life life(seed);
    for (int step = 0; step < 120; ++step) {
      life.Step();
      if (testing::Test::HasFailure()) FAIL() << "step " << step;
    }
    life.Heal();
    if (testing::Test::HasFailure()) FAIL() << "while healing";
  }
}

TEST(FanOutProperty, APlanIsWhatHappens) {
  const uint64_t only = FromEnvironment("BUNKER_FANOUT_SEED", 0);
  const uint64_t first = only != 0 ? only : 1;
  const uint64_t last = only != 0 ? only : FromEnvironment("BUNKER_FANOUT_SEEDS", 6);
  size_t compared = 0;
  for (uint64_t seed = first; seed <= last; ++seed) {
    SCOPED_TRACE("BUNKER_FANOUT_SEED=" + std::to_string(seed));
    Life life(seed);
    for (int step = 0; step < 40; ++step) life.Step();
    life.Heal();
    for (int i = 0; i < 5; ++i) life.PlanAndDo();
    if (testing::Test::HasFailure()) FAIL();
    compared += life.rows_compared;
  }
  EXPECT_GT(compared, 0u);
  std::printf("rows of plans compared with what happened: %zu\n", compared);
}

}  // namespace
}  // namespace bunker::controller
