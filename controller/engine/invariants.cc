// An oracle over the engine's own state, for tests and simulations.
#include <map>
#include <set>
#include <string>

#include "common/base/reason.h"
#include "controller/engine/engine.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

absl::Status Broken(const std::string& what) {
  return ReasonError(absl::StatusCode::kInternal, "INTERNAL", "invariant broken: " + what);
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
    const RowPtr<Image> image = s.images.Find(entry->image_id);
    if (image->resolved && (entry->wanted || EntryInUse(*entry)) && !entry->assigned &&
        entry->status != CacheStatus::kEvicted) {
      return Broken("resolved and wanted, but not assigned: " + key);
    }
  }
  if (const std::string what = s.IndexDifference(); !what.empty()) return Broken(what);
  for (const auto& [id, image] : s.images.rows()) {
    const WarmSummary warm = WarmOf(id);
    const std::vector<const Group*> groups = s.GroupsHolding(*image);
    const size_t scope = FanOut(*image, groups, s.WorkersOf(groups)).size();
    if (warm.queued + warm.ready + warm.failed + warm.skipped != scope) {
      return Broken("the warm counters of " + id + " don't sum to the workers in scope");
    }
  }
  return absl::OkStatus();
}

}  // namespace bunker::controller
