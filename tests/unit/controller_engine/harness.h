// The real core and engine over virtual time and a store in memory, with scripted workers.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/reason.h"
#include "common/base/rng.h"
#include "common/loop/virtual_loop.h"
#include "controller/engine/bootstrap.h"
#include "controller/engine/core.h"
#include "controller/engine/engine.h"
#include "controller/store/mem_store.h"
#include "gtest/gtest.h"

namespace bunker::controller {

inline const std::string kDigestA = "sha256:" + std::string(64, 'a');
inline const std::string kDigestB = "sha256:" + std::string(64, 'b');
inline const std::string kRootfs = "fsverity-sha256:" + std::string(64, 'c');

class Harness {
 public:
  explicit Harness(EngineOptions options = {}, bool manual_store = false, MemStore::Rows rows = {},
                   absl::Time start = absl::FromUnixSeconds(1'800'000'000))
      : loop(start), rng(7), store(std::make_unique<MemStore>(MemStore::Rows(rows), manual_store)) {
    if (rows.empty()) {
      MemStore boot;
      BootstrapSpec spec;
      spec.key_sha256 = std::string(64, '1');
      auto made = Bootstrap(boot, spec, start, rng);
      EXPECT_TRUE(made.ok());
      store = std::make_unique<MemStore>(boot.rows(), manual_store);
    }
    engine = std::make_unique<Engine>(options, rng);
    Load();
    core = std::make_unique<Core>(loop, *store, *engine, Core::Options{});
    core->Watch([this](const ChangeSet& changes) {
      for (const auto& change : changes.desired) {
        if (change.after != nullptr) {
          desired[change.id] = change.after;
        } else {
          desired.erase(change.id);
        }
      }
      sequences.push_back(changes.sequence);
    });
    core->Start();
    Settle();
    admin = CallerOf(std::string(64, '1'));
  }

  void Load() {
    // A manual store waits for its commits; the boot counter's must not.
    MemStore direct(store->rows(), false);
    EXPECT_TRUE(engine->Load(direct, loop.Now()).ok());
    store = std::make_unique<MemStore>(direct.rows(), store->is_manual());
  }

  void Settle() {
    loop.RunUntilIdle();
    while (!hold_commits && store->CommitNext()) loop.RunUntilIdle();
  }

  void Advance(absl::Duration duration) {
    const absl::Time end = loop.Now() + duration;
    while (loop.Now() < end) {
      loop.Advance(std::min(absl::Seconds(1), end - loop.Now()));
      for (const auto& [id, alive] : heartbeats) {
        if (alive) core->Post([id = id](Engine& e, Turn& t) { e.OnHeartbeat(t, id); });
      }
      Settle();
      const absl::Status status = engine->CheckInvariants();
      ASSERT_TRUE(status.ok()) << status;
    }
  }

  // Runs one event; what it returns.
  template <typename F>
  auto Do(F fn) {
    using R = decltype(fn(std::declval<Engine&>(), std::declval<Turn&>()));
    auto result = std::make_shared<std::optional<R>>();
    core->Post([fn, result](Engine& e, Turn& t) { result->emplace(fn(e, t)); });
    Settle();
    EXPECT_TRUE(result->has_value());
    const absl::Status status = engine->CheckInvariants();
    EXPECT_TRUE(status.ok()) << status;
    return std::move(**result);
  }
  // The same for a call that has to succeed and whose result is of no interest.
  template <typename F>
  void Must(F fn) {
    const auto result = Do(fn);
    EXPECT_TRUE(result.ok());
  }
  void Run(std::function<void(Engine&, Turn&)> fn) {
    core->Post([fn](Engine& e, Turn& t) { fn(e, t); });
    Settle();
    const absl::Status status = engine->CheckInvariants();
    EXPECT_TRUE(status.ok()) << status;
  }

  Caller CallerOf(const std::string& sha256) {
    const auto auth = Do([&](Engine& e, Turn& t) { return e.Authenticate(t, sha256); });
    EXPECT_TRUE(auth.ok()) << auth.status();
    Caller caller;
    caller.user_id = auth->user->id;
    caller.tenant_id = auth->tenant->id;
    caller.partner_id = auth->tenant->partner_id;
    caller.role = auth->user->role;
    caller.sees_all_bunkers = true;
    return caller;
  }

  // Joins and connects a worker; it stays alive until Silence().
  std::string AddWorker(const std::string& name, Resources capacity = {4000, 8192, 100'000},
                        Arch arch = Arch::kX86_64) {
    const std::string token = std::string(60, '0') + std::to_string(1000 + ++tokens);
    Must([&](Engine& e, Turn& t) {
      CreateJoinTokenSpec spec;
      spec.worker_name = name;
      spec.sha256 = token;
      return e.CreateJoinToken(t, spec);
    });
    const auto worker = Do([&](Engine& e, Turn& t) {
      return e.Join(t, token, name, std::string(60, 'f') + std::to_string(1000 + tokens));
    });
    EXPECT_TRUE(worker.ok()) << worker.status();
    const std::string id = (*worker)->id;
    Connect(id, capacity, arch);
    return id;
  }

  WorkerSession Connect(const std::string& id, Resources capacity = {4000, 8192, 100'000},
                        Arch arch = Arch::kX86_64, const std::string& boot_id = "boot-1") {
    WorkerFacts facts;
    facts.capacity = capacity;
    facts.arch = arch;
    facts.isolation = "tcg";
    facts.network_profiles = {"isolated", "registry", "allowlisted", "unrestricted"};
    return ConnectWith(id, facts, boot_id);
  }
  WorkerSession ConnectWith(const std::string& id, const WorkerFacts& facts,
                            const std::string& boot_id = "boot-1") {
    auto session = Do([&](Engine& e, Turn& t) {
      return e.ConnectWorker(t, id, facts, boot_id, "0.1.0");
    });
    EXPECT_TRUE(session.ok()) << session.status();
    for (const DesiredRowPtr& row : session->desired) desired[id + "/" + row->name] = row;
    heartbeats[id] = true;
    return *session;
  }
  void Silence(const std::string& id) { heartbeats[id] = false; }

  RowPtr<Image> Register(const std::string& name, bool lazy = false) {
    RegisterImageSpec spec;
    spec.name = name;
    spec.build_source.ref = "127.0.0.1:5000/library/" + name + ":1";
    spec.size_mib = 1024;
    spec.lazy_pull = lazy;
    const auto image =
        Do([&](Engine& e, Turn& t) { return e.RegisterImage(t, admin, spec); });
    EXPECT_TRUE(image.ok()) << image.status();
    return *image;
  }

  RowPtr<Group> MakeGroup(const std::string& name, const std::vector<std::string>& images,
                          const std::vector<std::string>& workers) {
    CreateGroupSpec spec;
    spec.name = name;
    auto group = Do([&](Engine& e, Turn& t) { return e.CreateGroup(t, admin, spec); });
    EXPECT_TRUE(group.ok()) << group.status();
    for (const std::string& image : images) {
      group = Do([&](Engine& e, Turn& t) { return e.AttachImage(t, admin, name, image); });
      EXPECT_TRUE(group.ok()) << group.status();
    }
    for (const std::string& worker : workers) {
      group = Do([&](Engine& e, Turn& t) { return e.AttachWorker(t, admin, name, worker); });
      EXPECT_TRUE(group.ok()) << group.status();
    }
    return *group;
  }

  const ImageAssignment* ImageRow(const std::string& worker, const std::string& image) {
    const auto it = desired.find(worker + "/" + ImageRowName(image));
    return it == desired.end() ? nullptr : &std::get<ImageAssignment>(it->second->row);
  }
  const BunkerAssignment* BunkerRow(const std::string& worker, const std::string& bunker) {
    const auto it = desired.find(worker + "/" + BunkerRowName(bunker));
    return it == desired.end() ? nullptr : &std::get<BunkerAssignment>(it->second->row);
  }

  void ObserveImage(const std::string& worker, const std::string& image, CacheStatus status,
                    std::function<void(ImageObservation&)> edit = nullptr) {
    const ImageAssignment* row = ImageRow(worker, image);
    ASSERT_NE(row, nullptr);
    ImageObservation seen;
    seen.image_id = image;
    seen.attempt = row->attempt;
    seen.status = status;
    if (status == CacheStatus::kReady) {
      seen.rootfs_digest = kRootfs;
      seen.recipe_digest = "sha256:recipe";
      seen.allocated_bytes = 100 << 20;
    }
    if (edit) edit(seen);
    Run([&](Engine& e, Turn& t) {
      e.OnObservation(t, worker, {ImageRowName(image), ++versions, seen});
    });
  }
  static void Resolve(ImageObservation& seen, const std::string& digest = kDigestA) {
    ResolvedImage resolved;
    resolved.repository = "127.0.0.1:5000/library/x";
    resolved.manifest_digest = digest;
    resolved.layers_bytes = 5000;
    resolved.config.env = {"PATH=/usr/bin", "LANG=C"};
    resolved.config.entrypoint = {"/bin/sh"};
    resolved.config.cmd = {"-l"};
    seen.resolved = resolved;
    seen.resolved_arch = Arch::kX86_64;
  }
  void MakeReady(const std::string& worker, const std::string& image) {
    ObserveImage(worker, image, CacheStatus::kBuilding,
                 [](ImageObservation& seen) { Resolve(seen); });
    ObserveImage(worker, image, CacheStatus::kReady,
                 [](ImageObservation& seen) { Resolve(seen); });
  }

  void ObserveBunker(const std::string& worker, const std::string& bunker, BunkerStatus status,
                     std::function<void(BunkerObservation&)> edit = nullptr) {
    BunkerObservation seen;
    seen.bunker_id = bunker;
    const BunkerAssignment* row = BunkerRow(worker, bunker);
    seen.incarnation = row == nullptr ? 1 : row->incarnation;
    seen.status = status;
    seen.isolation = "tcg";
    if (edit) edit(seen);
    Run([&](Engine& e, Turn& t) {
      e.OnObservation(t, worker, {BunkerRowName(bunker), ++versions, seen});
    });
  }

  absl::StatusOr<RowPtr<Bunker>> Create(const std::string& image,
                                        std::function<void(CreateBunkerSpec&)> edit = nullptr,
                                        PlacementExplanation* why = nullptr) {
    CreateBunkerSpec spec;
    spec.image = image;
    if (edit) edit(spec);
    return Do([&](Engine& e, Turn& t) { return e.CreateBunker(t, admin, spec, why); });
  }
  RowPtr<Bunker> Get(const std::string& bunker) {
    auto row = Do([&](Engine& e, Turn&) { return e.FindBunker(admin, bunker); });
    EXPECT_TRUE(row.ok()) << row.status();
    return row.ok() ? *row : nullptr;
  }
  RowPtr<CacheEntry> Entry(const std::string& image, const std::string& worker) {
    const auto views = Do([&](Engine& e, Turn&) { return e.ListCache(admin, image); });
    EXPECT_TRUE(views.ok());
    for (const CacheView& view : *views) {
      if (view.entry->worker_id == worker) return view.entry;
    }
    return nullptr;
  }
  WarmSummary WarmOf(const std::string& image) {
    return Do([&](Engine& e, Turn&) { return e.WarmOf(image); });
  }

  VirtualLoop loop;
  SeededRng rng;
  std::unique_ptr<MemStore> store;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Core> core;
  Caller admin;
  std::map<std::string, DesiredRowPtr> desired;  // as the watcher tells it
  std::map<std::string, bool> heartbeats;
  std::vector<uint64_t> sequences;
  bool hold_commits = false;
  uint64_t versions = 0;
  int tokens = 0;
};

}  // namespace bunker::controller
