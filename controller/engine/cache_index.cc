// The indexes of the cache rows, and the marks that Settle() follows.
#include <algorithm>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "common/oci/reference.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

std::string RegistryOf(const BuildSource& source) {
  if (source.kind != SourceKind::kOci) return "";
  const auto reference = oci::ParseReference(source.ref);
  return reference.ok() ? reference->host : source.ref;
}

// Images of equal layers share one file.
const std::string& FileOf(const CacheEntry& entry) {
  return entry.recipe_digest.empty() ? entry.image_id : entry.recipe_digest;
}

std::vector<std::string> Difference(const std::set<std::string>& a,
                                    const std::set<std::string>& b) {
  std::vector<std::string> ids;
  std::set_symmetric_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(ids));
  return ids;
}

}  // namespace

void Engine::State::MarkImage(const Image* before, const Image* after) {
  if (before == nullptr) registry_of_image[after->id] = RegistryOf(after->build_source);
  if (after == nullptr) registry_of_image.erase(before->id);
  const bool same = before != nullptr && after != nullptr && before->active == after->active &&
                    before->arch == after->arch && before->lazy_pull == after->lazy_pull &&
                    before->ownership == after->ownership &&
                    before->allocated_bytes == after->allocated_bytes &&
                    before->resolved.has_value() == after->resolved.has_value();
  if (!same) dirty_images.insert(after != nullptr ? after->id : before->id);
}

std::set<std::string> Engine::State::ImagesOf(const Group& group) const {
  std::set<std::string> ids = group.image_ids;
  if (!group.auto_images) return ids;
  const std::set<std::string>& own = images_of_owner.Of(OwnerKey(group.ownership));
  ids.insert(own.begin(), own.end());
  return ids;
}

// What a changed group may have changed for others: all pairs of the members that came or went, or
// every pair where the rule itself did.
void Engine::State::MarkGroup(const Group* before, const Group* after) {
  static const std::set<std::string> kNone;
  const bool same_rule = before != nullptr && after != nullptr &&
                         before->auto_images == after->auto_images &&
                         before->ownership == after->ownership;
  const auto& images_before = before != nullptr ? before->image_ids : kNone;
  const auto& images_after = after != nullptr ? after->image_ids : kNone;
  for (const std::string& image : Difference(images_before, images_after)) {
    dirty_images.insert(image);
  }
  const std::vector<std::string> moved = Difference(before != nullptr ? before->worker_ids : kNone,
                                                    after != nullptr ? after->worker_ids : kNone);
  for (const Group* group : {before, after}) {
    if (group == nullptr || (same_rule && moved.empty())) continue;
    for (const std::string& image : ImagesOf(*group)) {
      if (!same_rule) {
        dirty_images.insert(image);
        continue;
      }
      for (const std::string& worker : moved) dirty_pairs.insert({image, worker});
    }
  }
}

void Engine::State::MarkWorker(const Worker* before, const Worker* after) {
  const std::string& id = after != nullptr ? after->id : before->id;
  queue.SetWorker(id, after != nullptr && after->status != WorkerStatus::kOffline,
                  after != nullptr && after->status == WorkerStatus::kOnline);
  const bool both = before != nullptr && after != nullptr;
  if (!both || before->ownership != after->ownership || before->shared != after->shared ||
      before->facts.arch != after->facts.arch ||
      CacheLimitBytes(*before) != CacheLimitBytes(*after)) {
    dirty_workers.insert(id);
    room_changed.insert(id);
  }
  // What its rows count for depends on who may see it and on whether it works.
  const bool same_tally = both && before->ownership == after->ownership &&
                          before->shared == after->shared &&
                          (before->status == WorkerStatus::kOnline) ==
                              (after->status == WorkerStatus::kOnline);
  if (same_tally) return;
  for (const std::string& image : images_of_worker.Of(id)) {
    const CacheEntry& entry = *entries.Find(CacheEntry::Key(image, id));
    if (before != nullptr) tallies.Remove(entry, *before);
    if (after != nullptr) tallies.Add(entry, *after);
  }
}

// The row as it was leaves the indexes, the row as it is enters them.
void Engine::State::IndexWork(const CacheEntry* before, const CacheEntry* after) {
  const CacheEntry& one = after != nullptr ? *after : *before;
  const DiskUse& use = disk_use[one.worker_id];
  const uint64_t taken_before = use.file_bytes + use.reserved_bytes;
  if (before != nullptr) {
    IndexTurn(*before, false);
    IndexFile(*before, false);
  }
  if (after != nullptr) {
    IndexTurn(*after, true);
    IndexFile(*after, true);
  } else {
    entries_erased = true;
  }
  const bool unwanted = before != nullptr && before->wanted && (after == nullptr || !after->wanted);
  if (unwanted || use.file_bytes + use.reserved_bytes < taken_before) {
    room_changed.insert(one.worker_id);
  }
  const RowPtr<Worker> worker = workers.Find(one.worker_id);
  if (worker == nullptr) return;
  if (before != nullptr) tallies.Remove(*before, *worker);
  if (after != nullptr) tallies.Add(*after, *worker);
}

// Whether it waits for its turn, has it, or is left over.
void Engine::State::IndexTurn(const CacheEntry& entry, bool added) {
  const std::string key = entry.key();
  const WorkQueue::Place place{entry.worker_id, registry_of_image[entry.image_id]};
  if (entry.queue_tag != 0 && added) {
    const RowPtr<Image> image = images.Find(entry.image_id);
    queue.Add(place, image == nullptr ? "" : OwnerKey(image->ownership), entry.queue_tag, key);
  } else if (entry.queue_tag != 0) {
    queue.Remove(place, entry.queue_tag, key);
  }
  const auto mark = [&](bool is, std::set<std::string>& keys) {
    if (!is) return;
    if (added) {
      keys.insert(key);
    } else {
      keys.erase(key);
    }
  };
  const bool open = entry.assigned && entry.open();
  mark(open, open_entries);
  if (open && added) queue.Occupy(place);
  if (open && !added) queue.Free(place);
  const bool there = entry.assigned || entry.status != CacheStatus::kEvicted;
  mark(there && !entry.wanted && entry.skip == SkipReason::kNone, loose_entries);
  mark(!there && !entry.in_scope() && entry.observation_version == 0, retired_entries);
  if (entry.skip != SkipReason::kNoRoom) return;
  if (added) {
    no_room_of_worker.Add(entry.worker_id, entry.image_id);
  } else {
    no_room_of_worker.Remove(entry.worker_id, entry.image_id);
  }
}

// What it takes of the worker's disk: its file until the worker says that it is gone, and before
// that what was set aside for it.
void Engine::State::IndexFile(const CacheEntry& entry, bool added) {
  const bool ready = entry.status == CacheStatus::kReady && entry.assigned;
  DiskUse& use = disk_use[entry.worker_id];
  if (ready || entry.observed_ready) {
    const std::string& name = FileOf(entry);
    DiskUse::File& file = use.files[name];
    use.file_bytes -= file.bytes;
    if (added) {
      ++file.rows;
      file.bytes = std::max(file.bytes, entry.allocated_bytes);
      use.file_bytes += file.bytes;
    } else if (--file.rows == 0) {
      use.files.erase(name);
    } else {
      use.file_bytes += file.bytes;
    }
  } else if (entry.assigned) {
    if (added) {
      use.reserved_bytes += entry.reserved_bytes;
    } else {
      use.reserved_bytes -= entry.reserved_bytes;
    }
  }
}

Pin Engine::State::PinOf(const CacheEntry& entry, absl::Time now) const {
  if (uses_of_entry.count(entry.key()) > 0) return Pin::kUse;
  if (entry.wanted) return Pin::kGroup;
  const RowPtr<Image> image = images.Find(entry.image_id);
  const bool kept = image != nullptr && image->active && image->lazy_pull;
  return kept && now - entry.last_used_at < options.cache_keep ? Pin::kAge : Pin::kNone;
}

CacheState Engine::State::CacheOf(const Worker& worker, absl::Time now) const {
  CacheState cache;
  cache.limit_bytes = CacheLimitBytes(worker);
  cache.taken_bytes = placement.Allocated(worker.id).disk_mb << 20;
  const auto kept = snapshot_bytes_of_worker.find(worker.id);
  if (kept != snapshot_bytes_of_worker.end()) cache.taken_bytes += kept->second;
  const auto use = disk_use.find(worker.id);
  if (use != disk_use.end()) {
    cache.taken_bytes += use->second.file_bytes + use->second.reserved_bytes;
  }
  std::map<std::string, size_t> shared;  // by file: who carries its bytes
  for (const std::string& image : images_of_worker.Of(worker.id)) {
    const CacheEntry& entry = *entries.Find(CacheEntry::Key(image, worker.id));
    const bool ready = entry.assigned && entry.status == CacheStatus::kReady;
    if (!ready && !entry.observed_ready) continue;
    const std::string& name = FileOf(entry);
    const DiskUse::File& file = use->second.files.at(name);
    if (!entry.assigned) {
      if (file.rows == 1) cache.going_bytes += file.bytes;
      continue;
    }
    cache.files.push_back({image, file.bytes, entry.last_used_at, PinOf(entry, now)});
    if (file.rows == 1) continue;
    // A file that images share goes with the last of them, and with none that is pinned.
    const auto [it, first] = shared.try_emplace(name, cache.files.size() - 1);
    if (first) continue;
    CachedFile& other = cache.files[it->second];
    CachedFile& mine = cache.files.back();
    if (other.pin != Pin::kNone) {
      mine.bytes = 0;
    } else {
      other.bytes = 0;
      it->second = cache.files.size() - 1;
    }
  }
  return cache;
}

}  // namespace bunker::controller
