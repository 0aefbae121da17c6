// What happens because time passes.
#include <algorithm>
#include <string>
#include <utility>

#include "controller/engine/accounts.h"
#include "controller/engine/engine.h"
#include "controller/engine/scans.h"
#include "controller/engine/snapshots.h"
#include "controller/engine/state.h"
#include "controller/engine/worker_admin.h"

namespace bunker::controller {
namespace {

// Of one tick; the rest waits for the events that came meanwhile.
constexpr size_t kMaxLooks = 2000;
constexpr size_t kMaxSweptRows = 20000;
constexpr uint64_t kCopyRate = uint64_t{16} << 20;  // bytes a second

// Goes on through `table` behind `*from`: erases what is `old`, at most kMaxSweptRows rows a call.
// True: not at the end yet.
template <typename T, typename Old>
bool SweepSlice(Turn& turn, Table<T>& table, std::optional<std::string>& from, Old old) {
  if (!from) return false;
  std::vector<std::string> ids;
  auto it = table.rows().upper_bound(*from);
  for (size_t seen = 0; it != table.rows().end() && seen < kMaxSweptRows; ++it, ++seen) {
    *from = it->first;
    if (old(*it->second)) ids.push_back(it->first);
  }
  const bool more = it != table.rows().end();
  if (!more) from.reset();
  for (const std::string& id : ids) table.Erase(turn, id);
  return more;
}

}  // namespace

bool Engine::Tick(Turn& turn) {
  State& s = *state_;
  size_t looks = 0;
  for (; looks < kMaxLooks; ++looks) {
    const std::optional<std::string> id = s.worker_looks.PopDue(turn.now());
    if (!id) break;
    LookAtWorker(turn, *id);
  }
  worker_admin_->Tick(turn);
  for (; looks < kMaxLooks; ++looks) {
    const std::optional<std::string> id = s.bunker_looks.PopDue(turn.now());
    if (!id) break;
    LookAtBunker(turn, *id);
  }
  TickEntries(turn);
  TickTagChecks(turn);
  scans_->Tick(turn);
  snapshots_->Tick(turn);
  if (turn.now() - s.last_sweep >= s.options.sweep_period) {
    s.last_sweep = turn.now();
    Sweep(turn);
    return true;
  }
  return SweepOldRows(turn) || looks == kMaxLooks;
}

// Armed again by the next change of its status.
void Engine::LookAtWorker(Turn& turn, const std::string& id) {
  State& s = *state_;
  const RowPtr<Worker> worker = s.workers.Find(id);
  if (worker == nullptr) return;
  const absl::Time heard = std::max(LastHeartbeat(id), s.started_at);
  const Liveness liveness = LivenessOf(SilenceOf(heard, s.started_at, turn.now()),
                                       s.options.offline_after, s.options.lost_after);
  if (liveness == Liveness::kAlive) {
    s.worker_looks.ArmBy(id, heard + s.options.offline_after);
    return;
  }
  if (worker->status != WorkerStatus::kOffline) {
    SetWorkerStatus(turn, *worker, WorkerStatus::kOffline);
  }
  if (liveness == Liveness::kOffline) {
    s.worker_looks.ArmBy(id, heard + s.options.lost_after);
    return;
  }
  for (const std::string& bunker : s.bunkers_of_worker.Of(id)) {
    s.bunker_looks.ArmBy(bunker, absl::InfinitePast());
  }
}

// The contract's rule for a worker that stays away: ephemeral ones fail, the others wait. Their
// room stays taken, and their rows say STOPPED, until the worker is back and has ended them.
bool Engine::EndLost(Turn& turn, const Bunker& row, const Worker& worker) {
  State& s = *state_;
  if (worker.status != WorkerStatus::kOffline || row.lifecycle_mode != LifecycleMode::kEphemeral) {
    return false;
  }
  const absl::Duration silence = SilenceOf(LastHeartbeat(worker.id), s.started_at, turn.now());
  if (LivenessOf(silence, s.options.offline_after, s.options.lost_after) != Liveness::kLost) {
    return false;
  }
  if (row.status == BunkerStatus::kStopping) {
    Bunker ended = row;
    Terminate(ended, BunkerStatus::kStopped, row.status_reason, turn.now());
    PutBunker(turn, std::move(ended));
  } else {
    FailBunker(turn, row, "WORKER_LOST",
               "the worker has been silent for longer than the operator's lost_after_s");
  }
  return true;
}

// Armed again by any change of the row, of its worker's status, and of what it waits for.
void Engine::LookAtBunker(Turn& turn, const std::string& id) {
  State& s = *state_;
  const RowPtr<Bunker> row = s.bunkers.Find(id);
  if (row == nullptr || !row->live()) return;
  const RowPtr<Worker> worker = s.workers.Find(row->worker_id);
  if (EndLost(turn, *row, *worker)) return;
  const bool is_ending = row->status == BunkerStatus::kStopping ||
                         (row->status == BunkerStatus::kFailed && !row->halted);
  if (is_ending) {
    LookAtStopping(turn, *row, *worker);
    return;
  }
  const auto it = s.activities.find(id);
  const bool busy = row->active_execs > 0 || (it != s.activities.end() && it->second.open > 0);
  const absl::Time activity = it == s.activities.end()
                                  ? row->last_activity_at
                                  : std::max(row->last_activity_at, it->second.last);
  const std::string_view expiry = ExpiryOf(*row, activity, busy, turn.now());
  if (expiry == "IDLE_TIMEOUT") return OnIdleTimeout(turn, *row);
  if (!expiry.empty()) return StopBunker(turn, *row, std::string(expiry));
  s.bunker_looks.ArmBy(id, NextExpiry(*row, activity, busy, turn.now()));
  if (row->status == BunkerStatus::kProvisioning) LookAtProvisioning(turn, *row, *worker);
  if (row->IsSwitching()) LookAtStopping(turn, *row, *worker);
}

void Engine::LookAtStopping(Turn& turn, const Bunker& found, const Worker& worker) {
  State& s = *state_;
  if (worker.status == WorkerStatus::kOffline) return;
  const absl::Time since = std::max(found.stopping_at.value_or(found.updated_at),
                                    worker.status_since);
  if (turn.now() - since < s.options.stop_resend) {
    s.bunker_looks.ArmBy(found.id, since + s.options.stop_resend);
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

void Engine::LookAtProvisioning(Turn& turn, const Bunker& row, const Worker& worker) {
  State& s = *state_;
  if (worker.status == WorkerStatus::kOffline) return;
  if (row.boot_since) {
    absl::Time due = std::max(*row.boot_since, worker.status_since) + s.options.boot_deadline +
                     s.options.boot_slack;
    // A disk is copied before its VM boots, at this rate at least.
    const RowPtr<Snapshot> from = s.snapshots.Find(row.snapshot_id);
    if (from != nullptr && row.awaits_disk()) due += absl::Seconds(from->size_bytes / kCopyRate);
    if (turn.now() < due) {
      s.bunker_looks.ArmBy(row.id, due);
      return;
    }
    constexpr char kLate[] =
        "the worker did not report the bunker running in time: see the worker's log";
    if (row.disk_made) return FailKept(turn, row, "BOOT_TIMEOUT", kLate, /*halted=*/false);
    FailBunker(turn, row, "BOOT_TIMEOUT", kLate);
    return;
  }
  const RowPtr<CacheEntry> entry = s.entries.Find(CacheEntry::Key(row.image_id, row.worker_id));
  // While it comes up nothing is done in it: its last activity is when it was asked for.
  const absl::Time due = row.last_activity_at + s.options.fetch_deadline;
  const bool no_room = entry != nullptr && entry->skip != SkipReason::kNone;
  if (no_room || (entry != nullptr && entry->status == CacheStatus::kFailed && !entry->retry_at)) {
    FailBunker(turn, row, entry->error_code,
               "the image could not be made on the worker: " + entry->error_message);
  } else if (turn.now() < due) {
    s.bunker_looks.ArmBy(row.id, due);
  } else {
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
  TickOpen(turn);
  const std::set<std::string> unresolved = s.unresolved_images;
  for (const std::string& id : unresolved) ElectResolver(turn, *s.images.Find(id));
}

// What lazy_pull has brought is kept for the next bunker while the image is in service, where a
// next one can be placed: until something else needs the room.
bool Engine::LazyKept(const Image& image, const CacheEntry& entry) const {
  if (!image.active || !image.lazy_pull || entry.status != CacheStatus::kReady) return false;
  const std::vector<const Group*> groups = state_->GroupsHolding(image);
  if (groups.empty()) return true;
  for (const Group* group : groups) {
    if (group->worker_ids.count(entry.worker_id) > 0) return true;
  }
  return false;
}

void Engine::Sweep(Turn& turn) {
  State& s = *state_;
  accounts_->Sweep(turn);
  const std::set<std::string> loose = s.loose_entries;
  for (const std::string& key : loose) {
    const RowPtr<CacheEntry> entry = s.entries.Find(key);
    if (EntryInUse(*entry) || LazyKept(*s.images.Find(entry->image_id), *entry)) continue;
    Log(Severity::kInfo, "image.evicted",
        {{"image", entry->image_id}, {"worker", entry->worker_id}, {"by", "sweep"}});
    DropAssignment(turn, *entry);
  }
  const std::set<std::string> retired = s.retired_entries;
  for (const std::string& key : retired) {
    const RowPtr<CacheEntry> entry = s.entries.Find(key);
    if (turn.now() - entry->updated_at >= s.options.evicted_retention && !EntryInUse(*entry)) {
      s.entries.Erase(turn, key);
    }
  }
  s.swept_bunkers = s.swept_idempotency = "";
  SweepOldRows(turn);
  std::vector<std::string> old;
  for (const auto& [id, row] : s.join_tokens.rows()) {
    if (turn.now() - row->expires_at >= absl::Hours(24)) old.push_back(id);
  }
  for (const std::string& id : old) s.join_tokens.Erase(turn, id);
}

// These tables are long; a sweep goes through them in slices. True: it isn't through yet.
bool Engine::SweepOldRows(Turn& turn) {
  State& s = *state_;
  const absl::Time ended_by = turn.now() - s.options.finished_retention;
  const size_t before = s.bunkers.rows().size();
  const bool bunkers = SweepSlice(turn, s.bunkers, s.swept_bunkers, [&](const Bunker& row) {
    return !row.live() && !row.assigned && !row.room_held && *row.terminated_at <= ended_by;
  });
  // Who has not heard of their end can't be told any more.
  if (s.bunkers.rows().size() < before) s.meta.Put(turn, MetaRow{kBunkerFloor, s.NextVersion()});
  const absl::Time made_by = turn.now() - kIdempotencyLifetime;
  const bool records =
      SweepSlice(turn, s.idempotency, s.swept_idempotency,
                 [&](const IdempotencyRecord& row) { return row.created_at <= made_by; });
  return bunkers || records;
}

}  // namespace bunker::controller
