// What workers say of their rows. It comes from outside: nothing of it is CHECKed, everything is
// bounded by what was assigned, and what makes no sense is logged and left alone.
#include <algorithm>
#include <string>
#include <tuple>
#include <utility>

#include "controller/engine/engine.h"
#include "controller/engine/image_ref.h"
#include "controller/engine/scans.h"
#include "controller/engine/snapshots.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

constexpr size_t kMaxMessageBytes = 2048;

std::string Bounded(const std::string& text) { return text.substr(0, kMaxMessageBytes); }

// The code and the text for people, where the worker sent both as one.
std::pair<std::string, std::string> SplitReason(const BunkerObservation& seen,
                                                const char* fallback) {
  const std::string& reason = seen.status_reason;
  const auto is_code = [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  };
  if (!reason.empty() && std::all_of(reason.begin(), reason.end(), is_code)) {
    return {reason, Bounded(seen.status_message)};
  }
  const std::string text = Bounded(seen.status_message.empty() ? reason : seen.status_message);
  // "image DISK_FULL: …" and "DISK_FULL: …" name their code before the first colon.
  const std::string front = reason.substr(0, reason.find(':'));
  const size_t space = front.rfind(' ');
  const std::string word = space == std::string::npos ? front : front.substr(space + 1);
  const bool code = word.size() >= 3 && std::all_of(word.begin(), word.end(), is_code);
  return {code ? word.substr(0, 64) : fallback, text};
}

std::string IdIn(const std::string& name, std::string_view prefix) {
  return name.compare(0, prefix.size(), prefix) == 0 ? name.substr(prefix.size()) : "";
}

}  // namespace

void Engine::OnObservation(Turn& turn, const std::string& worker_id, const ObservedRow& row) {
  if (state_->workers.Find(worker_id) == nullptr) return;
  OnHeartbeat(turn, worker_id);
  if (const auto* image = std::get_if<ImageObservation>(&row.row)) {
    if (row.name == ImageRowName(image->image_id)) {
      ObserveImage(turn, worker_id, row.version, *image);
      return;
    }
  } else if (const auto* bunker = std::get_if<BunkerObservation>(&row.row)) {
    if (row.name == BunkerRowName(bunker->bunker_id)) {
      ObserveBunker(turn, worker_id, row.version, *bunker);
      return;
    }
  } else if (const auto* disk = std::get_if<DiskObservation>(&row.row)) {
    Worker worker = *state_->workers.Find(worker_id);
    worker.disk = *disk;
    worker.disk_version = row.version;
    worker.last_heartbeat = LastHeartbeat(worker_id);
    state_->workers.Put(turn, std::move(worker));
    return;
  } else if (const auto* scan = std::get_if<ScanObservation>(&row.row)) {
    if (row.name == ScanRowName(scan->image_id)) {
      scans_->OnObservation(turn, worker_id, *scan);
      return;
    }
  } else if (const auto* snapshot = std::get_if<SnapshotObservation>(&row.row)) {
    if (row.name == SnapshotRowName(snapshot->snapshot_id)) {
      snapshots_->OnObservation(turn, worker_id, *snapshot);
      return;
    }
  }
  Log(Severity::kWarning, "observation.misnamed", {{"worker", worker_id}, {"name", row.name}});
}

// ---- images ---------------------------------------------------------------------------------

// False where this worker's ref turned out to be something else than what is pinned.
bool Engine::PinImage(Turn& turn, const ImageObservation& seen, CacheEntry& entry) {
  State& s = *state_;
  if (!seen.resolved || seen.resolved->manifest_digest.empty()) return true;
  const RowPtr<Image> image = s.images.Find(entry.image_id);
  if (image->resolved) {
    return image->resolved->manifest_digest == seen.resolved->manifest_digest;
  }
  Image pinned = *image;
  pinned.resolved = seen.resolved;
  if (pinned.arch == Arch::kUnspecified) {
    pinned.arch = seen.resolved_arch != Arch::kUnspecified
                      ? seen.resolved_arch
                      : s.workers.Find(entry.worker_id)->facts.arch;
  }
  pinned.updated_at = turn.now();
  // The first look some time within the period, so that what was registered together spreads.
  if (HasTag(pinned)) {
    pinned.tag_check_at =
        turn.now() +
        s.options.tag_check_period * (0.5 + 0.5 * static_cast<double>(s.rng.Below(1000)) / 1000);
  }
  s.images.Put(turn, pinned);
  Log(Severity::kInfo, "image.resolved",
      {{"image", pinned.id}, {"digest", pinned.resolved->manifest_digest},
       {"worker", entry.worker_id}});
  // Everyone gets the digest now, the ones who waited their row.
  const std::set<std::string> workers = s.workers_of_image.Of(pinned.id);
  for (const std::string& worker_id : workers) {
    const RowPtr<CacheEntry> other = s.entries.Find(CacheEntry::Key(pinned.id, worker_id));
    if (other->assigned || WaitsForTurn(*other)) PutEntry(turn, *other);
  }
  for (const std::string& worker_id : workers) {
    const std::set<std::string> bunkers = s.bunkers_of_worker.Of(worker_id);
    for (const std::string& id : bunkers) {
      Bunker row = *s.bunkers.Find(id);
      if (row.image_id != pinned.id || !row.assigned) continue;
      row.image_digest = pinned.resolved->manifest_digest;
      PutBunker(turn, std::move(row));
    }
  }
  Settle(turn);  // the arch is known now: others may be left out
  return true;
}

void Engine::FailEntry(Turn& turn, CacheEntry entry, const std::string& code,
                       const std::string& message, bool retryable) {
  State& s = *state_;
  const bool again = entry.status == CacheStatus::kFailed && entry.error_code == code;
  if (entry.status != CacheStatus::kFailed) {
    ++entry.failures;
    entry.retry_at.reset();
    if (retryable) {
      entry.retry_at = turn.now() + BackOff(entry.failures, s.options.retry_base,
                                            s.options.retry_max);
    }
    Advance(entry, CacheStatus::kFailed, turn.now());
  }
  entry.error_code = code.empty() ? "INTERNAL" : Bounded(code);
  entry.error_message = Bounded(message);
  entry.retryable = retryable;
  entry.rate_bytes_per_s = 0;
  entry.reserved_bytes = 0;
  entry.updated_at = turn.now();
  if (!again) {
    Log(Severity::kWarning, "image.failed",
        {{"image", entry.image_id}, {"worker", entry.worker_id}, {"attempt", entry.attempt},
         {"code", entry.error_code}, {"message", entry.error_message}});
  }
  const std::string image_id = entry.image_id;
  PutEntry(turn, std::move(entry));
  const RowPtr<Image> image = s.images.Find(image_id);
  ElectResolver(turn, *image);
}

void Engine::ObserveImage(Turn& turn, const std::string& worker_id, uint64_t version,
                          const ImageObservation& seen) {
  State& s = *state_;
  const std::string key = CacheEntry::Key(seen.image_id, worker_id);
  const RowPtr<CacheEntry> found = s.entries.Find(key);
  if (found == nullptr) return;
  CacheEntry entry = *found;
  entry.observation_version = version;
  entry.observed_ready = seen.status == CacheStatus::kReady;
  ObserveTag(turn, entry, seen);
  // A file is a file, whichever attempt made it; but an earlier attempt's failure is no news.
  const bool current = seen.attempt == entry.attempt ||
                       (seen.status == CacheStatus::kReady && seen.attempt < entry.attempt);
  if (seen.last_used_at) entry.last_used_at = std::max(entry.last_used_at, *seen.last_used_at);
  // Not assigned: the worker is being told to drop it.
  if (!entry.assigned || !current) return PutEntry(turn, std::move(entry));
  if (seen.status == CacheStatus::kEvicted) return FileDropped(turn, std::move(entry));
  PutEntry(turn, entry);
  const bool same = PinImage(turn, seen, entry);
  const RowPtr<CacheEntry> present = s.entries.Find(key);
  if (!present->assigned) return;  // pinning showed that it is of no use here
  entry = *present;
  if (!same && seen.status == CacheStatus::kReady) {
    const RowPtr<Image> image = s.images.Find(seen.image_id);
    // A ref that moved meanwhile: by digest the next attempt gets the right one. A file has none.
    FailEntry(turn, std::move(entry), "DIGEST_MISMATCH",
              "this worker found " + seen.resolved->manifest_digest + ", the image is pinned to " +
                  image->resolved->manifest_digest +
                  ": put the same source on every worker, or register a new name",
              image->build_source.kind == SourceKind::kOci);
    return;
  }
  if (entry.stage != seen.stage || entry.bytes_done != seen.bytes_done) {
    entry.updated_at = turn.now();
  }
  entry.stage = seen.stage;
  if (!seen.source.empty()) entry.source = seen.source;
  entry.bytes_done = seen.bytes_done;
  entry.bytes_total = seen.bytes_total;
  entry.rate_bytes_per_s = seen.rate_bytes_per_s;
  if (!seen.stages.empty()) entry.stages = seen.stages;
  if (entry.stages.size() > 16) entry.stages.resize(16);
  if (seen.status == CacheStatus::kFailed) {
    FailEntry(turn, std::move(entry), seen.error_code, seen.error_message, seen.retryable);
    return;
  }
  if (!CanAdvance(entry.status, seen.status)) return;
  const bool became_ready =
      seen.status == CacheStatus::kReady && entry.status != CacheStatus::kReady;
  Advance(entry, seen.status, turn.now());
  entry.error_code.clear();
  entry.error_message.clear();
  entry.retryable = false;
  entry.retry_at.reset();
  if (seen.status == CacheStatus::kReady) {
    entry.failures = 0;
    entry.stage.clear();
    entry.rate_bytes_per_s = 0;
    entry.recipe_digest = seen.recipe_digest;
    entry.rootfs_digest = seen.rootfs_digest;
    entry.allocated_bytes = seen.allocated_bytes;
    entry.reserved_bytes = 0;
  }
  PutEntry(turn, entry);
  if (became_ready) EntryReady(turn, entry);
}

// The worker's disk got too full and it dropped the file, which it might: no group wanted it. If
// one does by now, it is made again.
void Engine::FileDropped(Turn& turn, CacheEntry entry) {
  Log(Severity::kInfo, "image.dropped",
      {{"image", entry.image_id}, {"worker", entry.worker_id}, {"why", "the disk is full"}});
  entry.observed_ready = false;
  if (!entry.wanted && !EntryInUse(entry)) return DropAssignment(turn, std::move(entry));
  RetryEntry(turn, entry);
}

void Engine::EntryReady(Turn& turn, const CacheEntry& entry) {
  State& s = *state_;
  Log(Severity::kInfo, "image.ready",
      {{"image", entry.image_id}, {"worker", entry.worker_id},
       {"rootfs_digest", entry.rootfs_digest}});
  const RowPtr<Image> image = s.images.Find(entry.image_id);
  if (image->rootfs_digest.empty()) {
    Image baked = *image;
    baked.rootfs_digest = entry.rootfs_digest;
    baked.allocated_bytes = entry.allocated_bytes;
    baked.updated_at = turn.now();
    s.images.Put(turn, std::move(baked));
  } else if (image->rootfs_digest != entry.rootfs_digest) {
    // Agents of different versions may write different bytes; within one version it is a fault.
    Log(Severity::kWarning, "image.rootfs_differs",
        {{"image", image->id}, {"first", image->rootfs_digest},
         {"this", entry.rootfs_digest}, {"worker", entry.worker_id}});
  }
  const std::set<std::string> waiting = s.bunkers_of_worker.Of(entry.worker_id);
  for (const std::string& id : waiting) {
    Bunker row = *s.bunkers.Find(id);
    if (row.image_id != entry.image_id || row.status != BunkerStatus::kProvisioning) continue;
    row.boot_since = turn.now();
    PutBunker(turn, std::move(row));
  }
}

// ---- bunkers --------------------------------------------------------------------------------

// The worker has nothing of it any more: its row goes, and its room is free.
void Engine::BunkerGone(Turn& turn, const Bunker& found) {
  Bunker row = found;
  row.assigned = false;
  row.room_held = false;
  row.observation_version = 0;
  row.active_execs = 0;
  if (row.live()) {
    const bool failed = row.status == BunkerStatus::kFailed;
    Terminate(row, failed ? BunkerStatus::kFailed : BunkerStatus::kStopped,
              row.status_reason.empty() ? "STOPPED" : row.status_reason, turn.now());
  }
  state_->activities.erase(row.id);
  state_->network_events.erase(row.id);
  PutBunker(turn, std::move(row));
}

void Engine::ObserveBunker(Turn& turn, const std::string& worker_id, uint64_t version,
                           const BunkerObservation& seen) {
  State& s = *state_;
  const RowPtr<Bunker> found = s.bunkers.Find(seen.bunker_id);
  if (found == nullptr || found->worker_id != worker_id || !found->assigned) {
    ObserveOrphan(turn, worker_id, seen);
    return;
  }
  Bunker row = *found;
  row.observation_version = version;
  if (seen.incarnation != row.incarnation) {
    PutBunker(turn, std::move(row));
    return;
  }
  if (seen.disk_kept && row.keeps_disk() && row.live()) {
    // One that is to end for good is about to be told; so has one that never came up.
    if (row.stop_wanted) {
      PutBunker(turn, std::move(row));
      return;
    }
    if (row.disk_made || seen.status == BunkerStatus::kStopped) {
      BunkerObservation ended = seen;
      std::tie(ended.status_reason, ended.status_message) = SplitReason(
          seen, seen.status == BunkerStatus::kFailed ? "VM_ENDED" : "GUEST_EXITED");
      BunkerHalted(turn, std::move(row), ended);
      return;
    }
  }
  if (seen.status == BunkerStatus::kStopped) {
    if (row.live() && !row.stop_wanted) {
      std::tie(row.status_reason, row.status_message) = SplitReason(seen, "GUEST_EXITED");
    }
    BunkerGone(turn, row);
    return;
  }
  if (seen.status == BunkerStatus::kFailed) {
    BunkerFailed(turn, std::move(row), seen);
    return;
  }
  if (!row.live()) {
    PutBunker(turn, std::move(row));  // it ended here; the row that says so is on its way
    return;
  }
  const bool is_up =
      seen.status == BunkerStatus::kRunning || seen.status == BunkerStatus::kPaused;
  if (is_up && row.status == BunkerStatus::kProvisioning) {
    Advance(row, BunkerStatus::kRunning, turn.now());
    row.started_at = turn.now();
    row.last_activity_at = turn.now();
    row.disk_made = row.keeps_disk();
    row.status_reason.clear();
    Log(Severity::kInfo, "bunker.running", {{"bunker", row.id}, {"worker", worker_id}});
  }
  TakeFacts(row, seen);
  if (!seen.network_events.empty()) s.network_events[row.id] = seen.network_events;
  if (seen.status == BunkerStatus::kPaused && row.status == BunkerStatus::kRunning) {
    Advance(row, BunkerStatus::kPaused, turn.now());
  } else if (seen.status == BunkerStatus::kRunning && row.status == BunkerStatus::kPaused) {
    Advance(row, BunkerStatus::kRunning, turn.now());
    row.last_activity_at = turn.now();  // nobody could use it meanwhile
  }
  row.updated_at = turn.now();
  PutBunker(turn, std::move(row));
}

// FAILED, as STOPPED, is final for the worker: nothing of the VM is left.
void Engine::BunkerFailed(Turn& turn, Bunker row, const BunkerObservation& seen) {
  // A boot that was cancelled because the bunker was to end has not failed.
  if (row.live() && !row.stop_wanted) {
    const auto [code, message] = SplitReason(seen, "BOOT_FAILED");
    FailBunker(turn, row, code, message);
    row = *state_->bunkers.Find(row.id);
  }
  BunkerGone(turn, row);
}

void Engine::TakeFacts(Bunker& row, const BunkerObservation& seen) {
  if (!seen.isolation.empty()) row.isolation = Bounded(seen.isolation);
  if (!seen.start_kind.empty()) row.start_kind = Bounded(seen.start_kind);
  if (!seen.fallback_reason.empty()) row.fallback_reason = Bounded(seen.fallback_reason);
  const double queue_ms = row.timings.queue_ms;
  const double place_ms = row.timings.place_ms;
  row.timings = seen.timings;
  row.timings.queue_ms = queue_ms;
  row.timings.place_ms = place_ms;
  row.active_execs = seen.active_execs;
  row.private_ip = Bounded(seen.private_ip);
  if (seen.usage) row.usage = seen.usage;
  if (seen.main && row.main) row.main_status = seen.main;
  if (seen.last_activity_at) {
    row.last_activity_at = std::max(row.last_activity_at, *seen.last_activity_at);
  }
}

// A worker shows a bunker that it should not have: it is told to end it. The row is in memory
// alone; a new controller hears of the orphan again.
void Engine::ObserveOrphan(Turn& turn, const std::string& worker_id,
                           const BunkerObservation& seen) {
  State& s = *state_;
  const std::string name = BunkerRowName(seen.bunker_id);
  const std::string key = worker_id + "/" + name;
  if (seen.status == BunkerStatus::kStopped || seen.status == BunkerStatus::kFailed) {
    s.desired.Erase(turn, key);
    return;
  }
  const DesiredRowPtr present = s.desired.Find(key);
  BunkerAssignment stop;
  stop.bunker_id = seen.bunker_id;
  stop.incarnation = seen.incarnation;
  stop.stopped = true;
  DesiredRow row{worker_id, name, 0, std::move(stop)};
  if (present != nullptr && present->row == row.row) return;
  row.version = s.NextVersion();
  s.desired.Put(turn, std::move(row));
  Log(Severity::kWarning, "bunker.orphan",
      {{"bunker", seen.bunker_id}, {"worker", worker_id},
       {"incarnation", seen.incarnation}});
}

void Engine::OnObservationRemoved(Turn& turn, const std::string& worker_id,
                                  const std::string& name) {
  State& s = *state_;
  if (const std::string id = IdIn(name, "images/"); !id.empty()) {
    const RowPtr<CacheEntry> found = s.entries.Find(CacheEntry::Key(id, worker_id));
    if (found == nullptr) return;
    CacheEntry entry = *found;
    entry.observation_version = 0;
    entry.observed_ready = false;
    // It is wanted and the worker has nothing of it: from the start.
    if (entry.assigned && entry.status != CacheStatus::kPending) {
      Advance(entry, CacheStatus::kPending, turn.now());
      ForgetProgress(entry);
    }
    PutEntry(turn, std::move(entry));
    return;
  }
  if (name == kDiskRowName) {
    if (s.workers.Find(worker_id) == nullptr) return;
    Worker worker = *s.workers.Find(worker_id);
    worker.disk = {};
    worker.disk_version = 0;
    s.workers.Put(turn, std::move(worker));
    return;
  }
  if (const std::string snapshot = IdIn(name, "snapshots/"); !snapshot.empty()) {
    return snapshots_->OnObservationRemoved(turn, worker_id, snapshot);
  }
  const std::string id = IdIn(name, "bunkers/");
  const RowPtr<Bunker> found = s.bunkers.Find(id);
  if (found == nullptr || found->worker_id != worker_id || !found->assigned) {
    if (!id.empty()) s.desired.Erase(turn, worker_id + "/" + name);
    return;
  }
  if (found->stop_wanted) {
    BunkerGone(turn, *found);
    return;
  }
  Bunker row = *found;
  const bool was_seen = row.observation_version != 0;
  row.observation_version = 0;
  if (was_seen && row.status != BunkerStatus::kProvisioning) {
    FailBunker(turn, std::move(row), "VM_GONE", "the worker no longer has this bunker");
  } else {
    PutBunker(turn, std::move(row));
  }
}

void Engine::OnObservationsSynced(Turn& turn, const std::string& worker_id,
                                  const std::vector<std::string>& names_held) {
  State& s = *state_;
  const std::set<std::string> held(names_held.begin(), names_held.end());
  const RowPtr<Worker> worker = s.workers.Find(worker_id);
  if (worker != nullptr && worker->disk_version != 0 && held.count(kDiskRowName) == 0) {
    OnObservationRemoved(turn, worker_id, kDiskRowName);
  }
  const std::set<std::string> images = s.images_of_worker.Of(worker_id);
  for (const std::string& id : images) {
    const RowPtr<CacheEntry> entry = s.entries.Find(CacheEntry::Key(id, worker_id));
    if (entry->observation_version != 0 && held.count(ImageRowName(id)) == 0) {
      OnObservationRemoved(turn, worker_id, ImageRowName(id));
    }
  }
  const std::set<std::string> bunkers = s.bunkers_of_worker.Of(worker_id);
  for (const std::string& id : bunkers) {
    const RowPtr<Bunker> row = s.bunkers.Find(id);
    if (row->observation_version != 0 && held.count(BunkerRowName(id)) == 0) {
      OnObservationRemoved(turn, worker_id, BunkerRowName(id));
    }
  }
}

void Engine::OnRejection(Turn& turn, const std::string& worker_id, const std::string& name,
                         uint64_t version, const std::string& code, const std::string& message) {
  State& s = *state_;
  if (const std::string id = IdIn(name, "images/"); !id.empty()) {
    const RowPtr<CacheEntry> found = s.entries.Find(CacheEntry::Key(id, worker_id));
    if (found == nullptr || !found->assigned || found->assignment_version != version) return;
    FailEntry(turn, *found, code, "the worker refused: " + message, /*retryable=*/false);
    return;
  }
  if (const std::string id = IdIn(name, "scans/"); !id.empty()) {
    scans_->OnRejection(turn, worker_id, id, version, message);
    return;
  }
  if (const std::string id = IdIn(name, "snapshots/"); !id.empty()) {
    return snapshots_->OnRejection(turn, worker_id, id, version, message);
  }
  const RowPtr<Bunker> found = s.bunkers.Find(IdIn(name, "bunkers/"));
  if (found == nullptr || found->worker_id != worker_id || !found->live() ||
      found->assignment_version != version) {
    return;
  }
  const std::string reason = code.empty() ? "REJECTED" : code;
  const std::string text = "the worker refused: " + message;
  if (!found->disk_made) return FailBunker(turn, *found, reason, text);
  if (found->status != BunkerStatus::kFailed && found->goal != BunkerGoal::kStop) {
    FailKept(turn, *found, reason, text, /*halted=*/false);
  }
}

}  // namespace bunker::controller
