// What happens because time passes.
#include <algorithm>
#include <string>
#include <utility>

#include "controller/engine/engine.h"
#include "controller/engine/state.h"

namespace bunker::controller {

void Engine::Tick(Turn& turn) {
  State& s = *state_;
  TickWorkers(turn);
  TickBunkers(turn);
  TickEntries(turn);
  if (turn.now() - s.last_sweep >= s.options.sweep_period) {
    s.last_sweep = turn.now();
    Sweep(turn);
  }
}

void Engine::TickWorkers(Turn& turn) {
  State& s = *state_;
  std::vector<RowPtr<Worker>> rows;
  for (const auto& [id, worker] : s.workers.rows()) rows.push_back(worker);
  for (const RowPtr<Worker>& worker : rows) {
    const absl::Duration silence =
        SilenceOf(LastHeartbeat(worker->id), s.started_at, turn.now());
    const Liveness liveness =
        LivenessOf(silence, s.options.offline_after, s.options.lost_after);
    if (liveness == Liveness::kAlive) continue;
    if (worker->status != WorkerStatus::kOffline) {
      SetWorkerStatus(turn, *worker, WorkerStatus::kOffline);
    }
    if (liveness == Liveness::kLost) TickLost(turn, *worker);
  }
}

// The contract's rule for a worker that stays away: ephemeral ones fail, the others wait. Their
// room stays taken, and their rows say STOPPED, until the worker is back and has ended them.
void Engine::TickLost(Turn& turn, const Worker& worker) {
  const std::set<std::string> ids = state_->bunkers_of_worker.Of(worker.id);
  for (const std::string& id : ids) {
    const RowPtr<Bunker> row = state_->bunkers.Find(id);
    if (!row->live() || row->lifecycle_mode != LifecycleMode::kEphemeral) continue;
    if (row->status == BunkerStatus::kStopping) {
      Bunker ended = *row;
      Terminate(ended, BunkerStatus::kStopped, row->status_reason, turn.now());
      PutBunker(turn, std::move(ended));
      continue;
    }
    FailBunker(turn, *row, "WORKER_LOST",
               "the worker has been silent for longer than the operator's lost_after_s");
  }
}

void Engine::TickBunkers(Turn& turn) {
  State& s = *state_;
  const std::set<std::string> ids = s.open_bunkers;  // a copy: it changes
  for (const std::string& id : ids) {
    const RowPtr<Bunker> row = s.bunkers.Find(id);
    const RowPtr<Worker> worker = s.workers.Find(row->worker_id);
    if (!row->live()) continue;
    if (row->status == BunkerStatus::kStopping) {
      TickStopping(turn, *row, *worker);
      continue;
    }
    const auto it = s.activities.find(id);
    const bool busy = row->active_execs > 0 || (it != s.activities.end() && it->second.open > 0);
    const absl::Time activity =
        it == s.activities.end() ? row->last_activity_at
                                 : std::max(row->last_activity_at, it->second.last);
    const std::string_view expiry = ExpiryOf(*row, activity, busy, turn.now());
    if (!expiry.empty()) {
      StopBunker(turn, *row, std::string(expiry));
    } else if (row->status == BunkerStatus::kProvisioning) {
      TickProvisioning(turn, *row, *worker);
    }
  }
}

void Engine::TickStopping(Turn& turn, const Bunker& found, const Worker& worker) {
  State& s = *state_;
  const absl::Time since = std::max(found.stopping_at.value_or(found.updated_at),
                                    worker.status_since);
  if (worker.status == WorkerStatus::kOffline || turn.now() - since < s.options.stop_resend) {
    return;
  }
  // Not confirmed: the same row under a new version makes the worker look again. The bunker is not
  // called stopped before the worker says so: its VM may be alive.
  Bunker row = found;
  row.stopping_at = turn.now();
  s.desired.Erase(turn, row.worker_id + "/" + BunkerRowName(row.id));
  Log(Severity::kWarning, "bunker.stop_overdue", {{"bunker", row.id}, {"worker", worker.id}});
  PutBunker(turn, std::move(row));
}

void Engine::TickProvisioning(Turn& turn, const Bunker& row, const Worker& worker) {
  State& s = *state_;
  if (worker.status == WorkerStatus::kOffline) return;
  if (row.boot_since) {
    const absl::Time since = std::max(*row.boot_since, worker.status_since);
    if (turn.now() - since >= s.options.boot_deadline + s.options.boot_slack) {
      FailBunker(turn, row, "BOOT_TIMEOUT",
                 "the worker did not report the bunker running in time: see the worker's log");
    }
    return;
  }
  const RowPtr<CacheEntry> entry = s.entries.Find(CacheEntry::Key(row.image_id, row.worker_id));
  if (entry != nullptr && entry->status == CacheStatus::kFailed && !entry->retry_at) {
    FailBunker(turn, row, entry->error_code,
               "the image could not be made on the worker: " + entry->error_message);
  } else if (turn.now() - row.created_at >= s.options.fetch_deadline) {
    FailBunker(turn, row, "FETCH_TIMEOUT",
               "the image did not get to the worker in time: warm it first");
  }
}

void Engine::TickEntries(Turn& turn) {
  State& s = *state_;
  const std::set<std::string> failed = s.failed_entries;
  for (const std::string& key : failed) {
    const RowPtr<CacheEntry> entry = s.entries.Find(key);
    if (turn.now() < *entry->retry_at || !(entry->wanted || EntryInUse(*entry))) continue;
    if (s.workers.Find(entry->worker_id)->status == WorkerStatus::kOffline) continue;
    RetryEntry(turn, *entry);
  }
  const std::set<std::string> unresolved = s.unresolved_images;
  for (const std::string& id : unresolved) ElectResolver(turn, *s.images.Find(id));
}

// What lazy_pull has brought is kept for the next bunker while the image is in service, where a
// next one can be placed.
bool Engine::LazyKept(const Image& image, const CacheEntry& entry) const {
  if (!image.active || !image.lazy_pull || entry.status != CacheStatus::kReady) return false;
  const std::vector<const Group*> groups = state_->GroupsHolding(image);
  return groups.empty() || state_->WorkersOf(groups).count(entry.worker_id) > 0;
}

void Engine::Sweep(Turn& turn) {
  State& s = *state_;
  std::vector<RowPtr<CacheEntry>> entries;
  for (const auto& [key, entry] : s.entries.rows()) {
    // One that no worker was told of yet ends too: nothing else would take it from its status.
    const bool there = entry->assigned || entry->status != CacheStatus::kEvicted;
    if (there && !entry->wanted && !EntryInUse(*entry)) entries.push_back(entry);
  }
  for (const RowPtr<CacheEntry>& entry : entries) {
    const RowPtr<Image> image = s.images.Find(entry->image_id);
    if (LazyKept(*image, *entry)) continue;
    Log(Severity::kInfo, "image.evicted",
        {{"image", entry->image_id}, {"worker", entry->worker_id}});
    DropAssignment(turn, *entry);
  }
  std::vector<std::string> old;
  for (const auto& [id, row] : s.bunkers.rows()) {
    if (!row->live() && !row->assigned && !row->room_held &&
        turn.now() - *row->terminated_at >= s.options.finished_retention) {
      old.push_back(id);
    }
  }
  for (const std::string& id : old) s.bunkers.Erase(turn, id);
  old.clear();
  for (const auto& [id, row] : s.idempotency.rows()) {
    if (turn.now() - row->created_at >= kIdempotencyLifetime) old.push_back(id);
  }
  for (const std::string& id : old) s.idempotency.Erase(turn, id);
  old.clear();
  for (const auto& [id, row] : s.join_tokens.rows()) {
    if (turn.now() - row->expires_at >= absl::Hours(24)) old.push_back(id);
  }
  for (const std::string& id : old) s.join_tokens.Erase(turn, id);
}

}  // namespace bunker::controller
