// From what is wanted to the rows that workers get: cache entries, their assignments, and which
// worker resolves a ref first.
#include <algorithm>
#include <map>
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

bool Open(CacheStatus status) {
  return status == CacheStatus::kPending || status == CacheStatus::kBuilding;
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
  row.credential_id = image->credential_id;
  row.tag_check = entry.tag_check;
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
  row.stopped = bunker.stop_wanted;
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
  return {bunker.worker_id, BunkerRowName(bunker.id), bunker.assignment_version, std::move(row)};
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
  return s.bunkers.Put(turn, std::move(bunker));
}

void Engine::WantEntry(Turn& turn, const Image& image, const std::string& worker_id,
                       bool by_group) {
  State& s = *state_;
  const RowPtr<CacheEntry> found = s.entries.Find(CacheEntry::Key(image.id, worker_id));
  if (found != nullptr && found->assigned && found->wanted >= by_group) return;
  CacheEntry entry;
  if (found == nullptr) {
    entry.image_id = image.id;
    entry.worker_id = worker_id;
    entry.created_at = entry.updated_at = entry.last_used_at = turn.now();
    entry.wanted = false;
  } else {
    entry = *found;
    if (entry.status == CacheStatus::kEvicted) Revive(entry, turn.now());
  }
  entry.wanted = entry.wanted || by_group;
  // Until the ref is resolved, only an elected worker gets the row.
  entry.assigned = entry.assigned || image.resolved.has_value();
  if (found != nullptr && found->wanted == entry.wanted && found->assigned == entry.assigned &&
      found->status == entry.status) {
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
  entry.stage.clear();
  Advance(entry, CacheStatus::kEvicted, turn.now());
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

void Engine::RetryEntry(Turn& turn, const CacheEntry& found) {
  CacheEntry entry = found;
  Restart(entry, turn.now());
  entry.assigned = true;
  PutEntry(turn, std::move(entry));
}

void Engine::ReconcileImage(Turn& turn, const std::string& image_id) {
  State& s = *state_;
  const RowPtr<Image> image = s.images.Find(image_id);
  BUNKER_CHECK(image != nullptr);
  const std::vector<const Group*> groups = s.GroupsHolding(*image);
  const auto wanted = FanOut(*image, groups, s.WorkersOf(groups));
  const std::set<std::string> known = s.workers_of_image.Of(image_id);  // a copy: it changes
  for (const std::string& worker_id : known) {
    const auto it = wanted.find(worker_id);
    if (it != wanted.end() && it->second == WantReason::kWanted) continue;
    const RowPtr<CacheEntry> entry = s.entries.Find(CacheEntry::Key(image_id, worker_id));
    if (entry->wanted) UnwantEntry(turn, *entry);
  }
  for (const auto& [worker_id, reason] : wanted) {
    if (reason == WantReason::kWanted) WantEntry(turn, *image, worker_id, /*by_group=*/true);
  }
  ElectResolver(turn, *image);
}

void Engine::ReconcileGroup(Turn& turn, const Group& group) {
  State& s = *state_;
  std::set<std::string> ids = group.image_ids;
  if (group.auto_images) {
    const std::set<std::string>& own = s.images_of_owner.Of(OwnerKey(group.ownership));
    ids.insert(own.begin(), own.end());
  }
  for (const std::string& id : ids) {
    if (s.images.Find(id) != nullptr) ReconcileImage(turn, id);
  }
}

void Engine::ReconcileWorker(Turn& turn, const std::string& worker_id) {
  State& s = *state_;
  std::set<std::string> ids = s.images_of_worker.Of(worker_id);
  for (const std::string& group_id : s.groups_of_worker.Of(worker_id)) {
    const RowPtr<Group> group = s.groups.Find(group_id);
    ids.insert(group->image_ids.begin(), group->image_ids.end());
    if (!group->auto_images) continue;
    const std::set<std::string>& own = s.images_of_owner.Of(OwnerKey(group->ownership));
    ids.insert(own.begin(), own.end());
  }
  for (const std::string& id : ids) {
    if (s.images.Find(id) != nullptr) ReconcileImage(turn, id);
  }
}

// One worker resolves a ref; the others get the digest that it reports. Level-triggered: called
// whenever an entry, an image or a worker changed, it elects one only if none is at work.
void Engine::ElectResolver(Turn& turn, const Image& image) {
  State& s = *state_;
  if (image.resolved || !image.active) return;
  RowPtr<CacheEntry> next;
  for (const std::string& worker_id : s.workers_of_image.Of(image.id)) {
    const RowPtr<CacheEntry> entry = s.entries.Find(CacheEntry::Key(image.id, worker_id));
    const RowPtr<Worker> worker = s.workers.Find(worker_id);
    if (!Open(entry->status) || worker->status == WorkerStatus::kOffline) continue;
    if (!entry->wanted && !EntryInUse(*entry)) continue;
    if (entry->assigned) {
      const bool late = entry->status == CacheStatus::kPending &&
                        turn.now() - entry->updated_at >= kResolverPatience;
      if (!late) return;
    } else if (next == nullptr && worker->status == WorkerStatus::kOnline) {
      next = entry;
    }
  }
  if (next == nullptr) return;
  CacheEntry elected = *next;
  elected.assigned = true;
  elected.updated_at = turn.now();
  PutEntry(turn, std::move(elected));
}

}  // namespace bunker::controller
