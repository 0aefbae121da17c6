// What a bunker goes through between its creation and its end: stop, start, pause, resume. Each
// call says what the worker is to make of it (Bunker::goal); the status follows when it has.
#include <optional>
#include <string>
#include <utility>

#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/engine/engine.h"
#include "controller/engine/quotas.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

absl::Status NotRunning(const Bunker& row, const std::string& remedy) {
  const std::string reason = row.status_reason.empty() ? "" : " (" + row.status_reason + ")";
  return ReasonError(absl::StatusCode::kFailedPrecondition, "BUNKER_NOT_RUNNING",
                     "the bunker " + row.name + " is " + std::string(NameOf(row.status)) + reason +
                         ": " + remedy);
}

absl::Status CheckKeepsDisk(const Bunker& row, std::string_view verb) {
  if (row.keeps_disk()) return absl::OkStatus();
  return ReasonError(absl::StatusCode::kPermissionDenied, "LIFECYCLE_MODE_DENIED",
                     "the bunker " + row.name + " is ephemeral, which has no " +
                         std::string(verb) +
                         ": delete it, or create one with lifecycle_mode session or persistent");
}

bool IsUp(const Bunker& row) {
  return row.status == BunkerStatus::kRunning || row.status == BunkerStatus::kPaused;
}

}  // namespace

absl::StatusOr<RowPtr<Bunker>> Engine::FindLive(const Caller& caller, const std::string& ref,
                                                std::optional<uint32_t> incarnation) const {
  ASSIGN_OR_RETURN(RowPtr<Bunker> row, FindBunkerToUse(caller, ref));
  RETURN_IF_ERROR(CheckIncarnation(*row, incarnation));
  if (!row->live() || row->stop_wanted) return NotRunning(*row, "it has ended; create a new one");
  return row;
}

absl::Status Engine::CheckIncarnation(const Bunker& row, std::optional<uint32_t> incarnation) {
  if (!incarnation || *incarnation == row.incarnation) return absl::OkStatus();
  return ReasonError(absl::StatusCode::kAborted, "STALE_INCARNATION",
                     "the bunker " + row.name + " is at incarnation " +
                         std::to_string(row.incarnation) + ", not " +
                         std::to_string(*incarnation) + ": read its row and decide again");
}

// Its VM is to end and its disk to stay.
RowPtr<Bunker> Engine::HaltBunker(Turn& turn, Bunker row, const std::string& reason) {
  row.goal = BunkerGoal::kStop;
  row.stopping_at = turn.now();
  row.status_reason = reason;
  row.status_message.clear();
  if (row.status != BunkerStatus::kStopping) Advance(row, BunkerStatus::kStopping, turn.now());
  return PutBunker(turn, std::move(row));
}

RowPtr<Bunker> Engine::SetPaused(Turn& turn, Bunker row, bool paused, const std::string& reason) {
  row.goal = paused ? BunkerGoal::kPause : BunkerGoal::kRun;
  row.status_reason = reason;
  row.stopping_at = turn.now();  // from when the worker's answer is awaited
  row.updated_at = turn.now();
  return PutBunker(turn, std::move(row));
}

void Engine::EndOrHalt(Turn& turn, const Bunker& row, const std::string& reason) {
  if (!row.keeps_disk()) return StopBunker(turn, row, reason);
  if (row.stop_wanted || row.halted || row.goal == BunkerGoal::kStop) return;
  HaltBunker(turn, row, reason);
}

void Engine::OnIdleTimeout(Turn& turn, const Bunker& row) {
  if (row.on_idle == OnIdle::kPause) {
    SetPaused(turn, row, true, "IDLE_TIMEOUT");
    return;
  }
  EndOrHalt(turn, row, "IDLE_TIMEOUT");
}

// It failed and is no more than its disk, which a later start may use.
void Engine::FailKept(Turn& turn, Bunker row, const std::string& reason, const std::string& message,
                      bool halted) {
  Log(Severity::kWarning, "bunker.failed",
      {{"bunker", row.id}, {"worker", row.worker_id}, {"incarnation", row.incarnation},
       {"reason", reason}, {"message", message}});
  state_->placement.NoteFailure(row.worker_id, turn.now());
  Advance(row, BunkerStatus::kFailed, turn.now());
  row.goal = BunkerGoal::kStop;
  row.halted = halted;
  row.stopping_at = turn.now();
  row.active_execs = 0;
  row.status_reason = reason.substr(0, 256);
  row.status_message = message.substr(0, 2048);
  state_->activities.erase(row.id);
  PutBunker(turn, std::move(row));
}

// The worker has ended its VM and kept its disk.
void Engine::BunkerHalted(Turn& turn, Bunker row, const BunkerObservation& seen) {
  if (seen.status == BunkerStatus::kFailed && row.goal != BunkerGoal::kStop) {
    return FailKept(turn, std::move(row), seen.status_reason, seen.status_message, true);
  }
  if (row.halted) {
    PutBunker(turn, std::move(row));
    return;
  }
  if (row.status != BunkerStatus::kFailed) {
    if (row.goal != BunkerGoal::kStop) {
      row.status_reason = seen.status_reason.substr(0, 256);
      row.status_message = seen.status_message.substr(0, 2048);
    }
    Advance(row, BunkerStatus::kStopped, turn.now());
  }
  row.goal = BunkerGoal::kStop;
  row.halted = true;
  row.active_execs = 0;
  row.updated_at = turn.now();
  state_->activities.erase(row.id);
  Log(Severity::kInfo, "bunker.halted",
      {{"bunker", row.id}, {"worker", row.worker_id}, {"incarnation", row.incarnation},
       {"reason", row.status_reason}});
  PutBunker(turn, std::move(row));
}

// Its disk is on one worker: there it has to fit again, or nowhere.
absl::Status Engine::CheckRoomToStart(const Turn& turn, const Bunker& row) const {
  const State& s = *state_;
  const RowPtr<Worker> worker = s.workers.Find(row.worker_id);
  const std::string where = "the worker that has the disk of " + row.name;
  if (worker == nullptr || worker->status != WorkerStatus::kOnline) {
    const std::string status =
        worker == nullptr ? "gone" : std::string(NameOf(worker->status));
    return ReasonError(absl::StatusCode::kUnavailable, "WORKER_UNAVAILABLE",
                       where + " is " + status + ": wait until it is online again");
  }
  QuotaUsage more;
  more.bunkers = 1;
  more.persistent = row.lifecycle_mode == LifecycleMode::kPersistent ? 1 : 0;
  more.cpu_millicores = row.cpu_millicores;
  more.memory_mb = row.memory_mb;
  RETURN_IF_ERROR(quotas_->Check(row.owner, more, 1));
  const PlacementCandidate there = s.placement.Candidate(row.worker_id, turn.now());
  Resources wanted = {row.cpu_millicores, row.memory_mb + kVmOverheadMb, 0};
  if (Fits(wanted, there.room, there.allocated)) return absl::OkStatus();
  return ReasonError(absl::StatusCode::kUnavailable, "WORKER_UNAVAILABLE",
                     where + " has no room for its cpu and memory now: stop another bunker there, "
                             "or try again later");
}

absl::StatusOr<RowPtr<Bunker>> Engine::Relaunch(Turn& turn, const RowPtr<Bunker>& found) {
  if (found->halted) RETURN_IF_ERROR(CheckRoomToStart(turn, *found));
  Bunker row = *found;
  BeginIncarnation(row, turn.now());
  const RowPtr<CacheEntry> image =
      state_->entries.Find(CacheEntry::Key(row.image_id, row.worker_id));
  if (image == nullptr || !IsPlaceable(*image)) row.boot_since.reset();
  state_->activities.erase(row.id);
  Log(Severity::kInfo, "bunker.relaunched",
      {{"bunker", row.id}, {"worker", row.worker_id}, {"incarnation", row.incarnation}});
  return PutBunker(turn, std::move(row));
}

absl::StatusOr<RowPtr<Bunker>> Engine::StopKeeping(Turn& turn, const Caller& caller,
                                                   const std::string& ref,
                                                   std::optional<uint32_t> incarnation) {
  ASSIGN_OR_RETURN(const RowPtr<Bunker> row, FindLive(caller, ref, incarnation));
  RETURN_IF_ERROR(CheckKeepsDisk(*row, "stop"));
  if (row->goal == BunkerGoal::kStop) return row;
  return HaltBunker(turn, *row, "STOPPED");
}

absl::StatusOr<RowPtr<Bunker>> Engine::StartAgain(Turn& turn, const Caller& caller,
                                                  const std::string& ref,
                                                  std::optional<uint32_t> incarnation) {
  ASSIGN_OR_RETURN(const RowPtr<Bunker> row, FindLive(caller, ref, incarnation));
  RETURN_IF_ERROR(CheckKeepsDisk(*row, "start"));
  if (row->goal == BunkerGoal::kPause) return SetPaused(turn, *row, false, "");
  if (row->goal == BunkerGoal::kRun) return row;
  return Relaunch(turn, row);
}

absl::StatusOr<RowPtr<Bunker>> Engine::RestartBunker(Turn& turn, const Caller& caller,
                                                     const std::string& ref,
                                                     std::optional<uint32_t> incarnation) {
  ASSIGN_OR_RETURN(const RowPtr<Bunker> row, FindLive(caller, ref, incarnation));
  RETURN_IF_ERROR(CheckKeepsDisk(*row, "restart"));
  return Relaunch(turn, row);
}

absl::StatusOr<RowPtr<Bunker>> Engine::PauseBunker(Turn& turn, const Caller& caller,
                                                   const std::string& ref,
                                                   std::optional<uint32_t> incarnation) {
  ASSIGN_OR_RETURN(const RowPtr<Bunker> row, FindLive(caller, ref, incarnation));
  if (!IsUp(*row)) return NotRunning(*row, "wait until it runs, then pause it");
  if (row->goal == BunkerGoal::kPause) return row;
  return SetPaused(turn, *row, true, "PAUSED");
}

absl::StatusOr<RowPtr<Bunker>> Engine::ResumeBunker(Turn& turn, const Caller& caller,
                                                    const std::string& ref,
                                                    std::optional<uint32_t> incarnation) {
  ASSIGN_OR_RETURN(const RowPtr<Bunker> row, FindLive(caller, ref, incarnation));
  if (!IsUp(*row)) return NotRunning(*row, "only a paused one can be resumed; start it");
  if (row->goal == BunkerGoal::kRun) return row;
  return SetPaused(turn, *row, false, "");
}

absl::StatusOr<RowPtr<Bunker>> Engine::UpdateBunker(Turn& turn, const Caller& caller,
                                                    const std::string& ref,
                                                    std::optional<uint32_t> incarnation,
                                                    const UpdateBunkerSpec& spec) {
  ASSIGN_OR_RETURN(const RowPtr<Bunker> found, FindLive(caller, ref, incarnation));
  Bunker row = *found;
  if (spec.name && *spec.name != row.name) {
    if (state_->bunker_by_name.count(row.tenant_id + "/" + *spec.name) > 0) {
      return ReasonError(absl::StatusCode::kAlreadyExists, "SLUG_CONFLICT",
                         "a live bunker is named " + *spec.name + ": choose another name");
    }
    row.name = *spec.name;
  }
  if (spec.label_set) row.label_set = *spec.label_set;
  if (spec.idle_timeout_s) row.idle_timeout_s = *spec.idle_timeout_s;
  if (spec.max_lifetime_s) {
    row.max_lifetime_s = *spec.max_lifetime_s;
    row.expires_at = row.created_at + absl::Seconds(row.max_lifetime_s);
  }
  row.updated_at = turn.now();
  return PutBunker(turn, std::move(row));
}

}  // namespace bunker::controller
