#include "controller/engine/tallies.h"

namespace bunker::controller {
namespace {

std::string KindOf(const Worker& worker) {
  return std::string(NameOf(worker.ownership.scope)) + "/" + worker.ownership.partner_id + "/" +
         worker.ownership.tenant_id + (worker.shared ? "/shared" : "");
}

uint32_t& CacheCounter(CacheSummary& summary, CacheStatus status) {
  switch (status) {
    case CacheStatus::kPending:
      return summary.pending;
    case CacheStatus::kBuilding:
      return summary.building;
    case CacheStatus::kReady:
      return summary.ready;
    case CacheStatus::kFailed:
      return summary.failed;
    case CacheStatus::kEvicted:
      return summary.evicted;
  }
  return summary.evicted;
}

uint32_t& WarmCounter(WarmSummary& summary, const CacheEntry& entry, const Worker& worker) {
  if (entry.status == CacheStatus::kReady) return summary.ready;
  if (entry.skip != SkipReason::kNone || worker.status != WorkerStatus::kOnline) {
    return summary.skipped;
  }
  return entry.status == CacheStatus::kFailed ? summary.failed : summary.queued;
}

}  // namespace

void Tallies::Change(const CacheEntry& entry, const Worker& worker, int by) {
  const std::string kind = KindOf(worker);
  std::map<std::string, Tally>& kinds = tallies_[entry.image_id];
  Tally& tally = kinds[kind];
  tally.worker.ownership = worker.ownership;
  tally.worker.shared = worker.shared;
  const uint32_t step = static_cast<uint32_t>(by);  // -1 wraps, as unsigned counters may
  tally.rows += static_cast<uint64_t>(static_cast<int64_t>(by));
  if (entry.in_scope()) WarmCounter(tally.warm, entry, worker) += step;
  // A worker that the image is of no use to is no target of it.
  if (entry.skip != SkipReason::kWrongArch) CacheCounter(tally.cache, entry.status) += step;
  if (tally.rows > 0) return;
  kinds.erase(kind);
  if (kinds.empty()) tallies_.erase(entry.image_id);
}

WarmSummary Tallies::WarmOf(const std::string& image_id) const {
  WarmSummary sum;
  const auto it = tallies_.find(image_id);
  if (it == tallies_.end()) return sum;
  for (const auto& [kind, tally] : it->second) {
    sum.queued += tally.warm.queued;
    sum.ready += tally.warm.ready;
    sum.failed += tally.warm.failed;
    sum.skipped += tally.warm.skipped;
  }
  return sum;
}

CacheSummary Tallies::CacheOf(const std::string& image_id,
                              absl::FunctionRef<bool(const Worker&)> visible) const {
  CacheSummary sum;
  const auto it = tallies_.find(image_id);
  if (it == tallies_.end()) return sum;
  for (const auto& [kind, tally] : it->second) {
    if (!visible(tally.worker)) continue;
    sum.pending += tally.cache.pending;
    sum.building += tally.cache.building;
    sum.ready += tally.cache.ready;
    sum.failed += tally.cache.failed;
    sum.evicted += tally.cache.evicted;
  }
  return sum;
}

}  // namespace bunker::controller
