#include "controller/metrics/state_metrics.h"

namespace bunker::controller {

StateMetrics::StateMetrics(const Engine& engine) {
  // Every status is there from the start, so that a graph of one that is rare has its zeros.
  for (const auto& row : EnumNames(WorkerStatus())) workers_.With({std::string(row.name)});
  for (const auto& row : EnumNames(ScanStatus())) images_.With({std::string(row.name)});
  for (const auto& row : EnumNames(CacheStatus())) entries_.With({std::string(row.name)});
  for (const auto& row : EnumNames(BunkerStatus())) bunkers_.With({std::string(row.name), "none"});
  engine.Visit(*this);
}

void StateMetrics::CountWorker(const Worker& row, int64_t n) {
  workers_.With({std::string(NameOf(row.status))}).Add(n);
}

void StateMetrics::CountImage(const Image& row, int64_t n) {
  if (row.active) images_.With({std::string(NameOf(row.scan_status))}).Add(n);
}

void StateMetrics::CountEntry(const CacheEntry& row, int64_t n) {
  entries_.With({std::string(NameOf(row.status))}).Add(n);
}

void StateMetrics::CountBunker(const Bunker& row, int64_t n) {
  const bool known =
      row.start_kind == "restore" || row.start_kind == "pool" || row.start_kind == "cold";
  bunkers_.With({std::string(NameOf(row.status)), known ? row.start_kind : "none"}).Add(n);
}

void StateMetrics::OnBunkerChange(const Change<Bunker>& change) {
  if (change.before != nullptr) CountBunker(*change.before, -1);
  if (change.after == nullptr) return;
  const Bunker& row = *change.after;
  CountBunker(row, 1);
  if (change.before == nullptr) return placed_.Add();
  if (!change.before->started_at && row.started_at)
    start_seconds_.Observe(absl::ToDoubleSeconds(*row.started_at - row.created_at));
  if (change.before->status != row.status && row.status == BunkerStatus::kFailed) failed_.Add();
}

void StateMetrics::OnChanges(const ChangeSet& changes) {
  for (const auto& change : changes.workers) {
    if (change.before != nullptr) CountWorker(*change.before, -1);
    if (change.after != nullptr) CountWorker(*change.after, 1);
  }
  for (const auto& change : changes.images) {
    if (change.before != nullptr) CountImage(*change.before, -1);
    if (change.after != nullptr) CountImage(*change.after, 1);
  }
  for (const auto& change : changes.cache_entries) {
    if (change.before != nullptr) CountEntry(*change.before, -1);
    if (change.after != nullptr) CountEntry(*change.after, 1);
  }
  for (const auto& change : changes.bunkers) OnBunkerChange(change);
}

void StateMetrics::Register(metrics::Registry* registry) const {
  registry->Add("bunker_workers", "Workers, by status.", &workers_);
  registry->Add("bunker_images", "Active images, by scan status.", &images_);
  registry->Add("bunker_cache_entries", "Images on workers, by status.", &entries_);
  registry->Add("bunker_bunkers", "Bunkers whose rows are kept, by status and start kind.",
                &bunkers_);
  registry->Add("bunker_placements_total", "Bunkers that were given a worker.", &placed_);
  registry->Add("bunker_bunker_failures_total", "Bunkers that failed.", &failed_);
  registry->Add("bunker_start_duration_seconds", "From the create to running.", &start_seconds_);
}

}  // namespace bunker::controller
