// What a change of a group's members would do, told beforehand.
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status_macros.h"
#include "controller/engine/engine.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

// The groups that would hold `image`, with `changed` in place of the row of its id.
std::vector<const Group*> Replaced(const std::vector<const Group*>& holding, const Group& changed,
                                   const Image& image) {
  std::vector<const Group*> groups;
  for (const Group* group : holding) {
    if (group->id != changed.id) groups.push_back(group);
  }
  if (GroupHolds(changed, image)) groups.push_back(&changed);
  return groups;
}

}  // namespace

// What becomes of the pair where `after` are the groups that hold the image.
PlanRow Engine::PlanPair(const Image& image, const Worker& worker,
                         const std::vector<const Group*>& after) const {
  const State& s = *state_;
  PlanRow row;
  const RowPtr<CacheEntry> entry = s.entries.Find(CacheEntry::Key(image.id, worker.id));
  const bool there = entry != nullptr && entry->assigned && entry->status == CacheStatus::kReady;
  row.bytes = there ? entry->allocated_bytes : 0;
  const std::optional<SkipReason> want = Want(image, after, worker);
  if (!want) {
    if (entry != nullptr && EntryInUse(*entry)) {
      row.reason = "a bunker uses it; it is evicted after that";
    } else if (there && image.active && image.lazy_pull && after.empty()) {
      row.reason = "lazy_pull keeps it until its room is needed";
    } else {
      row.action = PlanAction::kEvict;
      row.reason = "no group pairs them any more";
      if (!there) row.reason += "; it is not made";
    }
    return row;
  }
  if (there) {
    row.reason = "it is there already";
    return row;
  }
  row.bytes = image.size_in_bytes();
  if (*want != SkipReason::kNone) {
    row.action = PlanAction::kSkip;
    row.reason = *want == SkipReason::kWrongArch ? "the worker is of another architecture"
                                                 : "it can never fit on the worker's disk";
    return row;
  }
  // A file that was to go and that the worker still has is simply kept.
  if (entry != nullptr && entry->status == CacheStatus::kEvicted && entry->observed_ready) {
    row.bytes = entry->allocated_bytes;
    row.reason = "it is there still";
    return row;
  }
  row.action = PlanAction::kPull;
  row.reason = "it is not there yet";
  if (worker.status != WorkerStatus::kOnline) {
    row.reason += "; it waits, for the worker is " + std::string(NameOf(worker.status));
  }
  return row;
}

absl::StatusOr<GroupPlan> Engine::PlanGroup(const Turn& turn, const Caller& caller,
                                            const std::string& ref,
                                            const GroupChange& change) const {
  const State& s = *state_;
  ASSIGN_OR_RETURN(const RowPtr<Group> before, FindGroup(caller, ref));
  Group after = *before;
  for (const std::string& image : change.add_images) {
    ASSIGN_OR_RETURN(const RowPtr<Image> row, FindImageFor(caller, *before, image));
    after.image_ids.insert(row->id);
  }
  for (const std::string& image : change.remove_images) {
    ASSIGN_OR_RETURN(const RowPtr<Image> row, FindImage(caller, image));
    after.image_ids.erase(row->id);
  }
  for (const std::string& worker : change.add_workers) {
    ASSIGN_OR_RETURN(const RowPtr<Worker> row, FindWorkerFor(caller, *before, worker));
    after.worker_ids.insert(row->id);
  }
  for (const std::string& worker : change.remove_workers) {
    ASSIGN_OR_RETURN(const WorkerView view, FindWorker(caller, worker));
    after.worker_ids.erase(view.worker->id);
  }
  std::set<std::string> images = s.ImagesOf(*before);
  images.merge(s.ImagesOf(after));
  std::set<std::string> workers = before->worker_ids;
  workers.insert(after.worker_ids.begin(), after.worker_ids.end());
  GroupPlan plan;
  for (const std::string& image_id : images) {
    const RowPtr<Image> image = s.images.Find(image_id);
    if (image == nullptr) continue;
    const std::vector<const Group*> holding = s.GroupsHolding(*image);
    const std::vector<const Group*> then = Replaced(holding, after, *image);
    for (const std::string& worker_id : workers) {
      const RowPtr<Worker> worker = s.workers.Find(worker_id);
      if (worker == nullptr || !MaySeeWorker(caller, *worker)) continue;
      const bool paired = Want(*image, holding, *worker) || Want(*image, then, *worker);
      if (!paired) continue;
      PlanRow row = PlanPair(*image, *worker, then);
      row.image = image;
      row.worker = worker;
      plan.rows.push_back(std::move(row));
    }
  }
  PlanRoom(turn, plan);
  return plan;
}

// Whether what is pulled fits, in the order in which it will be asked for: what the plan lets go
// of may be evicted for it, and what lies about on the worker.
void Engine::PlanRoom(const Turn& turn, GroupPlan& plan) const {
  const State& s = *state_;
  std::map<std::string, CacheState> caches;
  std::map<std::pair<std::string, std::string>, size_t> evicted;  // worker, image: its row
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    const PlanRow& row = plan.rows[i];
    auto [it, fresh] = caches.try_emplace(row.worker->id);
    if (fresh) it->second = s.CacheOf(*row.worker, turn.now());
    if (row.action != PlanAction::kEvict) continue;
    evicted[{row.worker->id, row.image->id}] = i;
    for (CachedFile& file : it->second.files) {
      if (file.image_id == row.image->id) file.pin = Pin::kNone;
    }
  }
  const size_t planned = plan.rows.size();
  for (size_t i = 0; i < planned; ++i) {
    if (plan.rows[i].action != PlanAction::kPull) continue;
    const PlanRow row = plan.rows[i];
    CacheState& cache = caches[row.worker->id];
    const uint64_t needed = NeededBytes(*row.image);
    const RoomVerdict room = MakeRoom(needed, cache);
    if (!room.fits && !room.could) {
      plan.rows[i].action = PlanAction::kSkip;
      plan.rows[i].reason = NoRoomMessage(needed, room);
      continue;
    }
    for (const std::string& id : room.evict) {
      std::erase_if(cache.files, [&](const CachedFile& file) {
        if (file.image_id != id) return false;
        cache.going_bytes += file.bytes;
        if (evicted.count({row.worker->id, id}) == 0) {
          plan.rows.push_back({row.worker, s.images.Find(id), PlanAction::kEvict, file.bytes,
                               "to make room for " + row.image->name});
        }
        return true;
      });
    }
    cache.taken_bytes += needed;
  }
}

}  // namespace bunker::controller
