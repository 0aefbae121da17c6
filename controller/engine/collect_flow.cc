// Collecting on one worker, when somebody asks.
#include <algorithm>
#include <string>
#include <utility>

#include "common/base/status_macros.h"
#include "controller/engine/engine.h"
#include "controller/engine/state.h"

namespace bunker::controller {

absl::StatusOr<CollectReport> Engine::CollectWorker(Turn& turn, const Caller& caller,
                                                    const std::string& ref, bool dry_run) {
  State& s = *state_;
  ASSIGN_OR_RETURN(const WorkerView view, FindWorker(caller, ref));
  const Worker& worker = *view.worker;
  if (!MayChange(caller, worker.ownership)) {
    return Denied("the worker belongs to scope " + std::string(NameOf(worker.ownership.scope)),
                  "only its owners may collect on it");
  }
  CollectReport report;
  for (const CachedFile& file : s.CacheOf(worker, turn.now()).files) {
    const RowPtr<CacheEntry> entry = s.entries.Find(CacheEntry::Key(file.image_id, worker.id));
    CollectRow row;
    row.image = s.images.Find(file.image_id);
    row.bytes = file.bytes;
    row.last_used_at = file.last_used_at;
    switch (file.pin) {
      case Pin::kUse:
        row.reason = "a bunker uses it";
        break;
      case Pin::kGroup:
        row.reason = "an availability group pairs it with this worker";
        break;
      case Pin::kAge:
        row.reason = "lazy_pull brought it, and it was used a moment ago";
        break;
      case Pin::kNone:
        row.reason = !row.image->active             ? "the image is deactivated"
                     : LazyKept(*row.image, *entry) ? "lazy_pull brought it, and nothing uses it"
                                                    : "no availability group wants it here";
        break;
    }
    (file.pin == Pin::kNone ? report.evicted : report.pinned).push_back(std::move(row));
  }
  const auto older = [](const CollectRow& a, const CollectRow& b) {
    return std::pair(a.last_used_at, a.image->id) < std::pair(b.last_used_at, b.image->id);
  };
  std::sort(report.evicted.begin(), report.evicted.end(), older);
  std::sort(report.pinned.begin(), report.pinned.end(), older);
  if (dry_run) return report;
  for (const CollectRow& row : report.evicted) {
    Log(Severity::kInfo, "image.evicted",
        {{"image", row.image->id}, {"worker", worker.id}, {"by", "gc"}});
    DropAssignment(turn, *s.entries.Find(CacheEntry::Key(row.image->id, worker.id)));
  }
  return report;
}

}  // namespace bunker::controller
