// An oracle over the engine's own state, for tests and simulations.
#include <map>
#include <set>
#include <string>

#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/engine/engine.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

absl::Status Broken(const std::string& what) {
  return ReasonError(absl::StatusCode::kInternal, "INTERNAL", "invariant broken: " + what);
}

// Who is attached where, and that no two call themselves the same.
absl::Status CheckInterfaces(const Engine::State& s) {
  std::map<std::string, std::string> names;
  std::map<std::string, std::set<std::string>> attached;
  for (const auto& [id, row] : s.bunkers.rows()) {
    if (!row->live()) continue;
    for (const BunkerInterface& interface : row->interfaces) {
      if (s.bridges.Find(interface.bridge_id) == nullptr) {
        return Broken("a live bunker's bridge is gone: " + id);
      }
      attached[interface.bridge_id].insert(id);
      if (interface.mac.empty()) return Broken("a card without a MAC: " + id);
      for (const std::string& name : {interface.MacKey(), interface.AddressKey()}) {
        if (!name.empty() && !names.emplace(name, id).second) {
          return Broken("two live cards are called " + name);
        }
      }
    }
  }
  if (names != s.bunker_of_link_name) return Broken("the index of names on bridges");
  const auto& indexed = s.bunkers_of_bridge.all();
  if (attached != std::map<std::string, std::set<std::string>>(indexed.begin(), indexed.end())) {
    return Broken("the index of who is attached");
  }
  return absl::OkStatus();
}

}  // namespace

// Both indexes told anew of all rows.
std::string Engine::State::IndexDifference() const {
  PlacementIndex fresh(options.placement);
  QuotaIndex quota;
  for (const auto& [id, user] : users.rows()) {
    for (const std::string& group : user->group_ids) quota.SetMember(group, id, true);
  }
  for (const auto& [id, group] : user_groups.rows()) quota.SetParent(id, group->parent_id);
  for (const auto& [id, row] : bunkers.rows()) {
    quota.Add(row->owner, CountOf(*row));
    if (row->room_held) fresh.Take(row->worker_id, row->footprint());
    if (row->live() && row->status == BunkerStatus::kProvisioning) {
      fresh.AddBooting(row->worker_id, 1);
    }
  }
  for (const auto& [id, worker] : workers.rows()) fresh.PutWorker(*worker);
  for (const auto& [id, group] : groups.rows()) {
    for (const std::string& worker : group->worker_ids) fresh.SetPaired(id, worker, true);
  }
  for (const auto& [key, entry] : entries.rows()) {
    if (entry->assigned) fresh.TakeCache(entry->worker_id, entry->allocated_bytes);
    fresh.SetReady(entry->image_id, entry->worker_id, IsPlaceable(*entry));
  }
  for (const auto& [id, row] : snapshots.rows()) {
    const uint64_t bytes = row->charged_bytes();
    if (bytes > 0) fresh.TakeCache(row->worker_id, bytes);
  }
  std::string what = placement.Difference(fresh);
  if (!what.empty()) return "placement's index: " + what;
  what = quota_index.Difference(quota);
  return what.empty() ? "" : "the quotas' index: " + what;
}

absl::Status Engine::CheckInvariants() const {
  const State& s = *state_;
  std::set<std::string> live_names;
  for (const auto& [id, row] : s.bunkers.rows()) {
    if (row->live() && !live_names.insert(row->tenant_id + "/" + row->name).second) {
      return Broken("two live bunkers are named " + row->name);
    }
    if (row->live() && !row->assigned) return Broken("live but not assigned: " + id);
    const DesiredRowPtr desired =
        s.desired.Find(row->worker_id + "/" + BunkerRowName(row->id));
    if (row->assigned && (desired == nullptr || desired->version != row->assignment_version)) {
      return Broken("assigned without its row: " + id);
    }
    if (!row->live() && row->assigned && !row->stop_wanted) {
      return Broken("ended, but its worker is to run it: " + id);
    }
    if (row->live() && !row->stop_wanted) {
      const RowPtr<CacheEntry> entry =
          s.entries.Find(CacheEntry::Key(row->image_id, row->worker_id));
      if (entry == nullptr || entry->status == CacheStatus::kEvicted) {
        return Broken("the image of a live bunker was evicted: " + id);
      }
    }
  }
  RETURN_IF_ERROR(CheckSnapshots());
  RETURN_IF_ERROR(CheckInterfaces(s));
  for (const auto& [key, entry] : s.entries.rows()) {
    const DesiredRowPtr desired =
        s.desired.Find(entry->worker_id + "/" + ImageRowName(entry->image_id));
    if (entry->assigned != (desired != nullptr)) return Broken("row of entry " + key);
    if (desired != nullptr && desired->version != entry->assignment_version) {
      return Broken("version of entry " + key);
    }
    if (entry->assigned && entry->status == CacheStatus::kEvicted) {
      return Broken("evicted but assigned: " + key);
    }
    if (entry->retry_at && entry->status != CacheStatus::kFailed) {
      return Broken("a retry without a failure: " + key);
    }
    RETURN_IF_ERROR(CheckEntry(*entry));
  }
  if (const std::string what = s.IndexDifference(); !what.empty()) return Broken(what);
  for (const auto& [id, image] : s.images.rows()) RETURN_IF_ERROR(CheckCounters(*image));
  return CheckLimits();
}

absl::Status Engine::CheckSnapshots() const {
  const State& s = *state_;
  std::map<std::string, uint64_t> bytes;  // by tenant
  for (const auto& [id, row] : s.snapshots.rows()) {
    bytes[row->tenant_id] += row->charged_bytes();
    const DesiredRowPtr desired = s.desired.Find(row->worker_id + "/" + SnapshotRowName(id));
    if (row->assigned && (desired == nullptr || desired->version != row->assignment_version)) {
      return Broken("assigned without its row: " + id);
    }
    if (!row->assigned && row->status != SnapshotStatus::kFailed) {
      return Broken("a snapshot that no worker is told of: " + id);
    }
    if (row->deleting && !s.bunkers_of_snapshot.Of(id).empty()) {
      return Broken("a bunker awaits " + id);
    }
    if (!row->kept()) continue;
    const RowPtr<CacheEntry> entry = s.entries.Find(row->entry_key());
    if (entry == nullptr || entry->status == CacheStatus::kEvicted) {
      return Broken("the image of a snapshot was evicted: " + id);
    }
    if (entry->assigned && DesiredOf(*entry).row != s.desired.Find(
            row->worker_id + "/" + ImageRowName(row->image_id))->row) {
      return Broken("the worker may drop the image of " + id);
    }
  }
  for (const auto& [tenant, sum] : bytes) {
    const auto it = s.snapshot_bytes_of_tenant.find(tenant);
    if (sum != (it == s.snapshot_bytes_of_tenant.end() ? 0 : it->second)) {
      return Broken("what the snapshots of " + tenant + " take");
    }
  }
  return absl::OkStatus();
}

// What becomes of a wanted row is decided: it is made, it waits for its turn, or it says why not.
absl::Status Engine::CheckEntry(const CacheEntry& entry) const {
  const State& s = *state_;
  const std::string key = entry.key();
  const RowPtr<Image> image = s.images.Find(entry.image_id);
  const bool waits = WaitsForTurn(entry);
  if (entry.queue_tag != 0 && !waits) return Broken("has a turn it does not wait for: " + key);
  if (image->resolved && waits && entry.queue_tag == 0) return Broken("waits for nothing: " + key);
  if (entry.skip != SkipReason::kNone &&
      (entry.status != CacheStatus::kPending || entry.assigned || entry.error_code.empty())) {
    return Broken("left out, but not pending with a reason: " + key);
  }
  if (entry.wanted && entry.status == CacheStatus::kEvicted) {
    return Broken("wanted and evicted: " + key);
  }
  if (entry.reserved_bytes != 0 && !(entry.assigned && entry.open())) {
    return Broken("disk set aside for nothing: " + key);
  }
  return absl::OkStatus();
}

// The counters that are kept are those that counting gives, and sum to the workers in scope.
absl::Status Engine::CheckCounters(const Image& image) const {
  const State& s = *state_;
  const std::vector<const Group*> groups = s.GroupsHolding(image);
  WarmSummary counted;
  size_t scope = 0;
  for (const auto& [worker_id, reason] : FanOut(image, groups, s.WorkersOf(groups))) {
    ++scope;
    const RowPtr<CacheEntry> entry = s.entries.Find(CacheEntry::Key(image.id, worker_id));
    if (entry == nullptr || !entry->in_scope()) return Broken("no row for " + image.id);
    const bool able = s.workers.Find(worker_id)->status == WorkerStatus::kOnline;
    if (entry->status == CacheStatus::kReady) {
      ++counted.ready;
    } else if (entry->skip != SkipReason::kNone || !able) {
      ++counted.skipped;
    } else if (entry->status == CacheStatus::kFailed) {
      ++counted.failed;
    } else {
      ++counted.queued;
    }
  }
  const WarmSummary warm = WarmOf(image.id);
  if (!(warm == counted)) return Broken("the warm counters of " + image.id);
  if (warm.queued + warm.ready + warm.failed + warm.skipped != scope) {
    return Broken("the warm counters of " + image.id + " don't sum to the workers in scope");
  }
  CacheSummary listed;
  for (const std::string& worker_id : s.workers_of_image.Of(image.id)) {
    const RowPtr<CacheEntry> entry = s.entries.Find(CacheEntry::Key(image.id, worker_id));
    if (entry->skip == SkipReason::kWrongArch) continue;
    listed.pending += entry->status == CacheStatus::kPending;
    listed.building += entry->status == CacheStatus::kBuilding;
    listed.ready += entry->status == CacheStatus::kReady;
    listed.failed += entry->status == CacheStatus::kFailed;
    listed.evicted += entry->status == CacheStatus::kEvicted;
  }
  if (!(listed == CacheSummaryOf(OperatorCaller(), image.id))) {
    return Broken("the cache summary of " + image.id);
  }
  return absl::OkStatus();
}

absl::Status Engine::CheckLimits() const {
  const State& s = *state_;
  std::map<std::string, uint32_t> on_worker;
  std::map<std::string, uint32_t> at_registry;
  for (const auto& [key, entry] : s.entries.rows()) {
    if (!entry->assigned || !entry->open()) continue;
    ++on_worker[entry->worker_id];
    if (s.workers.Find(entry->worker_id)->status == WorkerStatus::kOffline) continue;
    ++at_registry[s.registry_of_image.at(entry->image_id)];
  }
  for (const auto& [worker, open] : on_worker) {
    if (open != s.queue.open_on_worker(worker)) return Broken("the work counted on " + worker);
  }
  for (const auto& [host, open] : at_registry) {
    if (open != s.queue.open_at_registry(host)) return Broken("the work counted at " + host);
  }
  return absl::OkStatus();
}

}  // namespace bunker::controller
