// What is told of an image's cache rows.
#include <algorithm>
#include <string>
#include <utility>

#include "common/base/status_macros.h"
#include "controller/engine/engine.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

// Whether the view has a row for it. A worker that was a target once is none any more; one that
// the image is of no use to never was. Of a deactivated image all is shown until it is forgotten.
bool IsListed(const Image& image, const CacheEntry& entry) {
  if (entry.skip == SkipReason::kWrongArch) return false;
  return !image.active || entry.wanted || entry.status != CacheStatus::kEvicted;
}

}  // namespace

WarmSummary Engine::WarmOf(const std::string& image_id) const {
  return state_->tallies.WarmOf(image_id);
}

CacheSummary Engine::CacheSummaryOf(const Caller& caller, const std::string& image_id) const {
  return state_->tallies.CacheOf(
      image_id, [&](const Worker& worker) { return MaySeeWorker(caller, worker); });
}

absl::StatusOr<std::vector<CacheView>> Engine::ListCache(const Caller& caller,
                                                         const std::string& image_ref) const {
  ASSIGN_OR_RETURN(CacheDelta all, CacheSince(caller, image_ref, std::nullopt));
  std::sort(all.rows.begin(), all.rows.end(),
            [](const CacheView& a, const CacheView& b) { return a.worker_name < b.worker_name; });
  return std::move(all.rows);
}

absl::StatusOr<CacheDelta> Engine::CacheSince(const Caller& caller, const std::string& image_ref,
                                              std::optional<uint64_t> after, bool live) const {
  const State& s = *state_;
  ASSIGN_OR_RETURN(const RowPtr<Image> image, FindImage(caller, image_ref));
  CacheDelta delta;
  delta.upto = s.versions->last();
  const RowPtr<MetaRow> floor = s.meta.Find(kCacheFloor);
  const bool forgotten = floor != nullptr && after && *after < floor->value && !live;
  delta.complete = !after || *after > delta.upto || forgotten;
  for (const std::string& worker_id : s.workers_of_image.Of(image->id)) {
    const RowPtr<Worker> worker = s.workers.Find(worker_id);
    if (worker == nullptr || !MaySeeWorker(caller, *worker)) continue;
    RowPtr<CacheEntry> entry = s.entries.Find(CacheEntry::Key(image->id, worker_id));
    if (!delta.complete && entry->change_id <= *after) continue;
    if (IsListed(*image, *entry)) {
      delta.rows.push_back({std::move(entry), worker->name});
    } else if (!delta.complete) {
      delta.removed.push_back(worker_id);
    }
  }
  std::sort(delta.rows.begin(), delta.rows.end(), [](const CacheView& a, const CacheView& b) {
    return a.entry->change_id < b.entry->change_id;
  });
  return delta;
}

}  // namespace bunker::controller
