// From what is wanted to the rows that workers get: cache entries, their assignments, and which
// worker resolves a ref first.
#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "controller/engine/engine.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

// A resolver that has not begun by then is joined by another one: its queue may be long.
constexpr absl::Duration kResolverPatience = absl::Seconds(60);

// A new life of the entry: whatever the worker still says of the attempt before is stale.
void Restart(CacheEntry& entry, absl::Time now) {
  Advance(entry, CacheStatus::kPending, now);
  ++entry.attempt;
  ForgetProgress(entry);
}

// Wanted again. A worker that has not told that the file is gone may never have heard that it was
// to go: then it has nothing to tell, and the file is taken to be there. If the news is only on its
// way, it makes the entry pending when it comes.
void Revive(CacheEntry& entry, absl::Time now) {
  if (!entry.observed_ready) {
    Restart(entry, now);
    return;
  }
  Advance(entry, CacheStatus::kPending, now);
  Advance(entry, CacheStatus::kReady, now);
}

std::pair<std::string, std::string> SkipError(const Image& image, const Worker& worker,
                                              SkipReason reason) {
  if (reason == SkipReason::kWrongArch) {
    return {"ARCH_UNAVAILABLE", "the image is for " + std::string(NameOf(image.arch)) +
                                    " and the worker is " + std::string(NameOf(worker.facts.arch)) +
                                    ": attach workers of that architecture"};
  }
  return {"DISK_FULL", "the image needs " + Mib(NeededBytes(image)) +
                           " and the worker keeps at most " + Mib(CacheLimitBytes(worker)) +
                           " in all: it can never fit there, use a worker with a larger disk"};
}

std::string HostnameFor(const std::string& name) {
  std::string host = name.substr(0, 63);
  for (char& c : host) {
    if (c == '.' || c == '_') c = '-';
  }
  while (!host.empty() && host.back() == '-') host.pop_back();
  return host;
}

}  // namespace

bool Engine::EntryInUse(const CacheEntry& entry) const {
  return state_->uses_of_entry.count(entry.key()) > 0;
}

DesiredRow Engine::DesiredOf(const CacheEntry& entry) const {
  const RowPtr<Image> image = state_->images.Find(entry.image_id);
  const RowPtr<Worker> worker = state_->workers.Find(entry.worker_id);
  BUNKER_CHECK(image != nullptr && worker != nullptr);
  ImageAssignment row;
  row.image_id = image->id;
  row.source = image->build_source;
  row.tenant_id = image->ownership.tenant_id;
  row.scope = image->ownership.scope;
  if (image->resolved) row.manifest_digest = image->resolved->manifest_digest;
  row.size_mib = image->size_mib;
  row.arch = image->arch == Arch::kUnspecified ? worker->facts.arch : image->arch;
  row.attempt = entry.attempt;
  row.default_cpu_millicores = image->default_cpu_millicores;
  row.default_memory_mb = image->default_memory_mb;
  row.default_disk_mb = image->default_disk_mb;
  row.credential_id = image->credential_id;
  row.tag_check = entry.tag_check;
  row.expendable = !entry.wanted && state_->snapshots_of_entry.Of(entry.key()).empty();
  return {entry.worker_id, ImageRowName(image->id), entry.assignment_version, std::move(row)};
}

DesiredRow Engine::DesiredOf(const Bunker& bunker) const {
  BunkerAssignment row;
  row.bunker_id = bunker.id;
  row.incarnation = bunker.incarnation;
  row.image_id = bunker.image_id;
  row.tenant_id = bunker.tenant_id;
  row.cpu_millicores = bunker.cpu_millicores;
  row.memory_mb = bunker.memory_mb;
  row.disk_mb = bunker.disk_mb;
  row.hostname = HostnameFor(bunker.name);
  row.network_profile = bunker.network_profile;
  row.network_allowlist = bunker.network_allowlist;
  row.interfaces = bunker.interfaces;
  row.bandwidth_mbit = bunker.bandwidth_mbit;
  row.disk_bytes_per_s = bunker.disk_bytes_per_s;
  row.disk_iops = bunker.disk_iops;
  row.snapshot_id = bunker.snapshot_id;
  row.snapshot_memory = bunker.snapshot_memory && !bunker.disk_made;
  row.stopped = bunker.stop_wanted || bunker.goal == BunkerGoal::kStop;
  row.paused = !row.stopped && bunker.goal == BunkerGoal::kPause;
  row.keep_disk = bunker.keeps_disk() && !bunker.stop_wanted;
  row.disk_expected = row.keep_disk && bunker.disk_made;
  row.boot_deadline_ms =
      static_cast<uint64_t>(absl::ToInt64Milliseconds(state_->options.boot_deadline));
  const RowPtr<Image> image = state_->images.Find(bunker.image_id);
  if (image != nullptr && image->resolved) {
    for (const std::string& pair : image->resolved->config.env) {
      const size_t equals = pair.find('=');
      if (equals != std::string::npos) row.env[pair.substr(0, equals)] = pair.substr(equals + 1);
    }
    row.working_dir = image->resolved->config.working_dir;
    row.user = image->resolved->config.user;
  }
  for (const auto& [variable, value] : bunker.env_vars) row.env[variable] = value;
  if (bunker.main) {
    row.main = bunker.main;
    if (image != nullptr) row.main->args = image->args(bunker.main->args);
  }
  return {bunker.worker_id, BunkerRowName(bunker.id), bunker.assignment_version, std::move(row)};
}

// Whether it is to be made and has not had its turn. Until the image's ref is resolved, only the
// worker that was elected for it (ElectResolver) waits for a turn.
bool Engine::WaitsForTurn(const CacheEntry& entry) const {
  return entry.status == CacheStatus::kPending && !entry.assigned &&
         entry.skip == SkipReason::kNone && (entry.wanted || EntryInUse(entry));
}

void Engine::PutEntry(Turn& turn, CacheEntry entry) {
  State& s = *state_;
  const std::string key = entry.worker_id + "/" + ImageRowName(entry.image_id);
  if (!entry.assigned) {
    s.desired.Erase(turn, key);
  } else {
    DesiredRow row = DesiredOf(entry);
    const DesiredRowPtr present = s.desired.Find(key);
    if (present == nullptr || present->row != row.row) {
      entry.assignment_version = row.version = s.NextVersion();
      s.desired.Put(turn, std::move(row));
    }
  }
  const RowPtr<Image> image = s.images.Find(entry.image_id);
  if (!WaitsForTurn(entry)) {
    entry.queue_tag = 0;
  } else if (entry.queue_tag == 0 && image->resolved) {
    entry.queue_tag = s.queue.NextTag(OwnerKey(image->ownership), EntryInUse(entry));
  }
  entry.change_id = s.NextVersion();
  s.entries.Put(turn, std::move(entry));
}

RowPtr<Bunker> Engine::PutBunker(Turn& turn, Bunker bunker) {
  State& s = *state_;
  const std::string key = bunker.worker_id + "/" + BunkerRowName(bunker.id);
  if (!bunker.assigned) {
    s.desired.Erase(turn, key);
  } else {
    DesiredRow row = DesiredOf(bunker);
    const DesiredRowPtr present = s.desired.Find(key);
    if (present == nullptr || present->row != row.row) {
      bunker.assignment_version = row.version = s.NextVersion();
      s.desired.Put(turn, std::move(row));
    }
  }
  bunker.change_id = s.NextVersion();
  return s.bunkers.Put(turn, std::move(bunker));
}

void Engine::WantEntry(Turn& turn, const Image& image, const std::string& worker_id,
                       bool by_group) {
  State& s = *state_;
  const RowPtr<CacheEntry> found = s.entries.Find(CacheEntry::Key(image.id, worker_id));
  CacheEntry entry;
  if (found == nullptr) {
    entry.image_id = image.id;
    entry.worker_id = worker_id;
    entry.created_at = entry.updated_at = entry.last_used_at = turn.now();
    entry.wanted = false;
  } else {
    entry = *found;
    if (entry.status == CacheStatus::kEvicted) Revive(entry, turn.now());
    if (entry.skip == SkipReason::kWrongArch || entry.skip == SkipReason::kTooLarge) {
      entry.skip = SkipReason::kNone;
      ForgetProgress(entry);
    }
  }
  entry.wanted = entry.wanted || by_group;
  // What is there needs no turn.
  entry.assigned = entry.assigned || entry.status == CacheStatus::kReady;
  const bool queues = WaitsForTurn(entry) && entry.queue_tag == 0 && image.resolved;
  if (found != nullptr && !queues && found->wanted == entry.wanted &&
      found->assigned == entry.assigned && found->status == entry.status &&
      found->skip == entry.skip) {
    return;
  }
  PutEntry(turn, std::move(entry));
}

void Engine::WantForScan(Turn& turn, const Image& image, const std::string& worker_id) {
  WantEntry(turn, image, worker_id, /*by_group=*/false);
  ElectResolver(turn, image);
}

void Engine::DropAssignment(Turn& turn, CacheEntry entry) {
  entry.assigned = false;
  entry.retry_at.reset();
  entry.failures = 0;
  entry.reserved_bytes = 0;
  entry.stage.clear();
  if (entry.skip != SkipReason::kNone) ForgetProgress(entry);
  entry.skip = SkipReason::kNone;
  Advance(entry, CacheStatus::kEvicted, turn.now());
  PutEntry(turn, std::move(entry));
}

// A group pairs the two, but the image is of no use there, or can never fit: a row says so.
void Engine::SkipEntry(Turn& turn, const Image& image, const Worker& worker, SkipReason reason) {
  State& s = *state_;
  const RowPtr<CacheEntry> found = s.entries.Find(CacheEntry::Key(image.id, worker.id));
  const bool there = found != nullptr && found->status == CacheStatus::kReady;
  // It does fit, then: a bound that was lowered is no reason to throw it away.
  if (reason == SkipReason::kTooLarge && there) return WantEntry(turn, image, worker.id, true);
  const auto [code, message] = SkipError(image, worker, reason);
  if (found != nullptr && found->skip == reason && found->error_message == message) return;
  CacheEntry entry;
  if (found == nullptr) {
    entry.image_id = image.id;
    entry.worker_id = worker.id;
    entry.created_at = entry.updated_at = entry.last_used_at = turn.now();
  } else {
    entry = *found;
    if (entry.status != CacheStatus::kPending) {
      Advance(entry, CacheStatus::kEvicted, turn.now());
      Advance(entry, CacheStatus::kPending, turn.now());
      ++entry.attempt;
    }
    ForgetProgress(entry);
  }
  entry.assigned = false;
  entry.wanted = false;
  entry.reserved_bytes = 0;
  entry.skip = reason;
  entry.error_code = code;
  entry.error_message = message;
  entry.updated_at = turn.now();
  PutEntry(turn, std::move(entry));
}

void Engine::UnwantEntry(Turn& turn, const CacheEntry& found) {
  CacheEntry entry = found;
  entry.wanted = false;
  // What is there stays until the sweep: wanting it again at once costs nothing then.
  if (EntryInUse(entry) || entry.status == CacheStatus::kReady) {
    if (found.wanted) PutEntry(turn, std::move(entry));
  } else if (entry.status != CacheStatus::kEvicted || entry.assigned) {
    DropAssignment(turn, std::move(entry));
  } else if (found.wanted) {
    PutEntry(turn, std::move(entry));
  }
}

// A new attempt, when its turn comes.
void Engine::RetryEntry(Turn& turn, const CacheEntry& found) {
  CacheEntry entry = found;
  Restart(entry, turn.now());
  entry.assigned = false;
  entry.reserved_bytes = 0;
  PutEntry(turn, std::move(entry));
}

void Engine::ReconcilePair(Turn& turn, const Image& image, const std::vector<const Group*>& groups,
                           const std::string& worker_id) {
  State& s = *state_;
  const RowPtr<Worker> worker = s.workers.Find(worker_id);
  if (worker == nullptr) return;
  const std::optional<SkipReason> want = Want(image, groups, *worker);
  if (!want) {
    const RowPtr<CacheEntry> entry = s.entries.Find(CacheEntry::Key(image.id, worker_id));
    if (entry != nullptr && entry->in_scope()) UnwantEntry(turn, *entry);
  } else if (*want == SkipReason::kNone) {
    WantEntry(turn, image, worker_id, /*by_group=*/true);
  } else {
    SkipEntry(turn, image, *worker, *want);
  }
}

void Engine::ReconcileImage(Turn& turn, const std::string& image_id) {
  State& s = *state_;
  const RowPtr<Image> image = s.images.Find(image_id);
  BUNKER_CHECK(image != nullptr);
  const std::vector<const Group*> groups = s.GroupsHolding(*image);
  std::set<std::string> workers = s.workers_of_image.Of(image_id);
  for (const Group* group : groups) {
    workers.insert(group->worker_ids.begin(), group->worker_ids.end());
  }
  for (const std::string& id : workers) ReconcilePair(turn, *image, groups, id);
  ElectResolver(turn, *image);
}

void Engine::Settle(Turn& turn) {
  State& s = *state_;
  for (const std::string& worker : std::exchange(s.dirty_workers, {})) {
    for (const std::string& image : s.images_of_worker.Of(worker)) {
      s.dirty_pairs.insert({image, worker});
    }
    for (const std::string& id : s.groups_of_worker.Of(worker)) {
      for (const std::string& image : s.ImagesOf(*s.groups.Find(id))) {
        s.dirty_pairs.insert({image, worker});
      }
    }
  }
  for (const std::string& id : std::exchange(s.dirty_images, {})) {
    if (s.images.Find(id) != nullptr) ReconcileImage(turn, id);
  }
  std::string last;
  std::vector<const Group*> groups;
  for (const auto& [image_id, worker_id] : std::exchange(s.dirty_pairs, {})) {
    const RowPtr<Image> image = s.images.Find(image_id);
    if (image == nullptr) continue;
    if (image_id != std::exchange(last, image_id)) groups = s.GroupsHolding(*image);
    ReconcilePair(turn, *image, groups, worker_id);
    ElectResolver(turn, *image);
  }
  for (const std::string& key : std::exchange(s.let_go, {})) {
    const RowPtr<CacheEntry> entry = s.entries.Find(key);
    if (entry == nullptr || entry->wanted || EntryInUse(*entry)) continue;
    const bool begun = entry->assigned || entry->in_scope();
    if (!begun && entry->status == CacheStatus::kPending) UnwantEntry(turn, *entry);
  }
  if (std::exchange(s.entries_erased, false)) {
    s.meta.Put(turn, MetaRow{kCacheFloor, s.NextVersion()});
  }
  Admit(turn);
}

// One worker resolves a ref; the others get the digest that it reports. Level-triggered: called
// whenever an entry, an image or a worker changed, it elects one only if none is at work.
void Engine::ElectResolver(Turn& turn, const Image& image) {
  State& s = *state_;
  if (image.resolved || !image.active) return;
  RowPtr<CacheEntry> next;
  size_t least = 0;
  for (const std::string& worker_id : s.workers_of_image.Of(image.id)) {
    const RowPtr<CacheEntry> entry = s.entries.Find(CacheEntry::Key(image.id, worker_id));
    const RowPtr<Worker> worker = s.workers.Find(worker_id);
    if (worker == nullptr || worker->status == WorkerStatus::kOffline) continue;
    if (entry->assigned && entry->open() && (entry->wanted || EntryInUse(*entry))) {
      const bool late = entry->status == CacheStatus::kPending &&
                        turn.now() - entry->updated_at >= kResolverPatience;
      if (!late) return;
    }
    if (!WaitsForTurn(*entry) || worker->status != WorkerStatus::kOnline) continue;
    if (entry->queue_tag != 0) return;
    const size_t load = s.queue.LoadOf(worker_id);
    if (next != nullptr && least <= load) continue;
    next = entry;
    least = load;
  }
  if (next == nullptr) return;
  CacheEntry elected = *next;
  elected.queue_tag = s.queue.NextTag(OwnerKey(image.ownership), EntryInUse(elected));
  elected.updated_at = turn.now();
  PutEntry(turn, std::move(elected));
}

}  // namespace bunker::controller
