#include "controller/engine/snapshots.h"

#include <algorithm>
#include <set>
#include <utility>

#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

constexpr size_t kSuffixLength = 5;
constexpr size_t kMaxMadeNameLength = 63;

absl::Status InUse(const std::string& message) {
  return ReasonError(absl::StatusCode::kFailedPrecondition, "RESOURCE_IN_USE", message);
}

SnapshotAssignment AssignmentOf(const Snapshot& row) {
  return {row.id, row.bunker_id, !row.kept(), row.status == SnapshotStatus::kReady, row.memory};
}

// Whether its worker has a disk with something on it, or will have it again.
bool HasDisk(const Bunker& bunker) {
  if (!bunker.live() || bunker.stop_wanted) return false;
  const bool is_up =
      bunker.status == BunkerStatus::kRunning || bunker.status == BunkerStatus::kPaused;
  return is_up || (bunker.keeps_disk() && bunker.disk_made);
}

}  // namespace

void Snapshots::Load() {
  for (const auto& [id, row] : state_.snapshots.rows()) {
    if (!row->assigned) continue;
    state_.desired.LoadRow(
        {row->worker_id, SnapshotRowName(id), row->assignment_version, AssignmentOf(*row)});
  }
}

// ---- rows -------------------------------------------------------------------------------------

// Whether its image may be dropped there hangs on the snapshots.
void Snapshots::TouchEntry(Turn& turn, const std::string& entry_key) {
  const RowPtr<CacheEntry> entry = state_.entries.Find(entry_key);
  if (entry != nullptr && entry->assigned) engine_.PutEntry(turn, *entry);
}

RowPtr<Snapshot> Snapshots::Put(Turn& turn, Snapshot row) {
  const RowPtr<Snapshot> before = state_.snapshots.Find(row.id);
  const std::string name = SnapshotRowName(row.id);
  const std::string key = row.worker_id + "/" + name;
  if (!row.assigned) {
    state_.desired.Erase(turn, key);
  } else {
    DesiredRow wanted{row.worker_id, name, 0, AssignmentOf(row)};
    const DesiredRowPtr present = state_.desired.Find(key);
    if (present == nullptr || present->row != wanted.row) {
      row.assignment_version = wanted.version = state_.NextVersion();
      state_.desired.Put(turn, std::move(wanted));
    }
  }
  const bool was_kept = before != nullptr && before->kept();
  RowPtr<Snapshot> after = state_.snapshots.Put(turn, std::move(row));
  if (was_kept != after->kept()) TouchEntry(turn, after->entry_key());
  return after;
}

void Snapshots::Forget(Turn& turn, const Snapshot& row) {
  Log(Severity::kInfo, "snapshot.removed", {{"snapshot", row.id}, {"worker", row.worker_id}});
  const std::string key = row.worker_id + "/" + SnapshotRowName(row.id);
  const std::string entry_key = row.entry_key();
  const bool was_kept = row.kept();
  const std::string id = row.id;
  state_.desired.Erase(turn, key);
  state_.snapshots.Erase(turn, id);
  if (was_kept) TouchEntry(turn, entry_key);
}

void Snapshots::Fail(Turn& turn, Snapshot row, const std::string& code,
                     const std::string& message, bool left_behind) {
  Log(Severity::kWarning, "snapshot.failed",
      {{"snapshot", row.id}, {"bunker", row.bunker_id}, {"worker", row.worker_id}, {"code", code},
       {"message", message}});
  row.status = SnapshotStatus::kFailed;
  row.error_code = code.empty() ? "INTERNAL" : code;
  row.error_message = message;
  row.size_bytes = 0;
  row.assigned = left_behind;
  row.told_at = turn.now();
  const RowPtr<Snapshot> failed = Put(turn, std::move(row));
  TellBunker(turn, *failed, failed->error_code + ": " + failed->error_message);
}

void Snapshots::TellBunker(Turn& turn, const Snapshot& row, const std::string& failure) {
  const RowPtr<Bunker> found = state_.bunkers.Find(row.bunker_id);
  if (found == nullptr || found->final_snapshot_id != row.id) return;
  if (!found->live() || found->stop_wanted) return;
  if (failure.empty()) return engine_.StopBunker(turn, *found, "DELETED");
  Bunker bunker = *found;
  bunker.final_snapshot_id.clear();
  bunker.status_reason = "SNAPSHOT_FAILED";
  bunker.status_message = "it was not deleted, since its final snapshot failed (" + failure +
                          "): delete it again, with or without a snapshot";
  bunker.updated_at = turn.now();
  engine_.PutBunker(turn, std::move(bunker));
}

// ---- taking -----------------------------------------------------------------------------------

absl::StatusOr<std::string> Snapshots::NameFor(const Bunker& bunker,
                                               const std::string& name) const {
  const auto taken = [&](const std::string& one) {
    return state_.snapshot_by_name.count(bunker.tenant_id + "/" + one) > 0;
  };
  if (!name.empty()) {
    if (!taken(name)) return name;
    return ReasonError(
        absl::StatusCode::kAlreadyExists, "SLUG_CONFLICT",
        "a snapshot is named " + name + ": choose another name, or delete that one first");
  }
  std::string base = bunker.name.substr(0, kMaxMadeNameLength - kSuffixLength - 1);
  while (!base.empty() && (base.back() == '.' || base.back() == '-' || base.back() == '_')) {
    base.pop_back();
  }
  constexpr std::string_view kAlphabet = "abcdefghijklmnopqrstuvwxyz0123456789";
  for (int tries = 0; tries < 100; ++tries) {
    std::string made = base + "-";
    for (size_t i = 0; i < kSuffixLength; ++i) {
      made += kAlphabet[state_.rng.Below(kAlphabet.size())];
    }
    if (!taken(made)) return made;
  }
  return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                     "no free name was found: give the snapshot one");
}

absl::Status Snapshots::CheckCap(const Bunker& bunker, bool memory) const {
  const EngineOptions& options = state_.options;
  const size_t count = state_.snapshots_of_tenant.Of(bunker.tenant_id).size();
  if (count >= options.max_snapshots_per_tenant) {
    return ReasonError(absl::StatusCode::kResourceExhausted, "BUNKER_QUOTA_EXCEEDED",
                       "the tenant may have " + std::to_string(options.max_snapshots_per_tenant) +
                           " snapshots (snapshots.per_tenant) and has " + std::to_string(count) +
                           ": delete some");
  }
  const auto it = state_.snapshot_bytes_of_tenant.find(bunker.tenant_id);
  const uint64_t used = it == state_.snapshot_bytes_of_tenant.end() ? 0 : it->second;
  const uint64_t most = (uint64_t{bunker.disk_mb} + (memory ? bunker.memory_mb : 0)) << 20;
  const uint64_t cap = options.max_snapshot_bytes_per_tenant;
  if (used <= cap && most <= cap - used) return absl::OkStatus();
  return ReasonError(absl::StatusCode::kResourceExhausted, "BUNKER_QUOTA_EXCEEDED",
                     "the tenant's snapshots may take " + Mib(cap) +
                         " (snapshots.mib_per_tenant) and take " + Mib(used) +
                         "; this one could take " + Mib(most) + ": delete some");
}

absl::Status Snapshots::CheckTakeable(const Bunker& bunker) const {
  if (!HasDisk(bunker)) {
    const bool ended = !bunker.live() || bunker.stop_wanted;
    return ReasonError(absl::StatusCode::kFailedPrecondition, "BUNKER_NOT_RUNNING",
                       "the bunker " + bunker.name + " is " + std::string(NameOf(bunker.status)) +
                           (ended ? ": its disk is gone, or about to be"
                                  : ": there is nothing on its disk yet; wait until it runs"));
  }
  const RowPtr<Worker> worker = state_.workers.Find(bunker.worker_id);
  if (worker == nullptr || worker->status == WorkerStatus::kOffline) {
    return ReasonError(absl::StatusCode::kUnavailable, "WORKER_UNAVAILABLE",
                       "the worker that has the disk of " + bunker.name +
                           " is offline: wait until it is online again");
  }
  if (state_.creating_of_bunker.count(bunker.id) == 0) return absl::OkStatus();
  return InUse("a snapshot of " + bunker.name + " is being taken: wait until it is ready");
}

// Whether there is a memory to take, and a worker that could go on with it.
absl::Status Snapshots::CheckMemory(const Bunker& bunker) const {
  if (bunker.status != BunkerStatus::kRunning && bunker.status != BunkerStatus::kPaused) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, "BUNKER_NOT_RUNNING",
                       "the bunker " + bunker.name + " is " + std::string(NameOf(bunker.status)) +
                           " and has no memory: start it, or leave memory out");
  }
  if (bunker.network_profile == NetworkProfile::kTransit) {
    return Invalid("memory: not of a bunker with network_profile transit, whose cards have "
                   "addresses of their own: leave memory out");
  }
  if (bunker.isolation != "kvm") return absl::OkStatus();
  return Invalid("memory: guests of this worker run on the CPU itself (kvm), and going on with a "
                 "saved memory is built for emulated ones alone: leave memory out");
}

absl::StatusOr<RowPtr<Snapshot>> Snapshots::TakeOf(Turn& turn, const Bunker& bunker,
                                                   const TakeSpec& wanted) {
  RETURN_IF_ERROR(CheckTakeable(bunker));
  if (wanted.memory) RETURN_IF_ERROR(CheckMemory(bunker));
  RETURN_IF_ERROR(CheckCap(bunker, wanted.memory));
  Snapshot row;
  ASSIGN_OR_RETURN(row.name, NameFor(bunker, wanted.name));
  if (wanted.memory) {
    row.memory = true;
    row.memory_mb = bunker.memory_mb;
    row.cpu_millicores = bunker.cpu_millicores;
    row.network_card = bunker.network_profile != NetworkProfile::kIsolated;
  }
  row.id = state_.MakeId("snap_", turn.now());
  row.tenant_id = bunker.tenant_id;
  row.partner_id = bunker.partner_id;
  row.owner = bunker.owner;
  row.bunker_id = bunker.id;
  row.worker_id = bunker.worker_id;
  row.image_id = bunker.image_id;
  row.image_name = bunker.image_name;
  row.image_digest = bunker.image_digest;
  row.disk_mb = bunker.disk_mb;
  row.assigned = true;
  row.created_at = row.told_at = turn.now();
  Log(Severity::kInfo, "snapshot.begun",
      {{"snapshot", row.id}, {"bunker", bunker.id}, {"worker", bunker.worker_id}});
  return Put(turn, std::move(row));
}

absl::StatusOr<RowPtr<Snapshot>> Snapshots::Take(Turn& turn, const Caller& caller,
                                                 const std::string& bunker_ref,
                                                 const TakeSpec& wanted) {
  ASSIGN_OR_RETURN(const RowPtr<Bunker> bunker, engine_.FindBunkerToUse(caller, bunker_ref));
  return TakeOf(turn, *bunker, wanted);
}

absl::StatusOr<RowPtr<Bunker>> Snapshots::TakeAndEnd(Turn& turn, const Caller& caller,
                                                     const std::string& bunker_ref,
                                                     std::optional<uint32_t> incarnation) {
  ASSIGN_OR_RETURN(const RowPtr<Bunker> found, engine_.FindBunkerToUse(caller, bunker_ref));
  RETURN_IF_ERROR(Engine::CheckIncarnation(*found, incarnation));
  if (!HasDisk(*found)) return engine_.DeleteBunker(turn, caller, found->id, incarnation);
  if (!found->final_snapshot_id.empty()) return found;
  ASSIGN_OR_RETURN(const RowPtr<Snapshot> last, TakeOf(turn, *found, {}));
  Bunker bunker = *found;
  bunker.final_snapshot_id = last->id;
  bunker.status_reason = "FINAL_SNAPSHOT";
  bunker.status_message.clear();
  bunker.updated_at = turn.now();
  return engine_.PutBunker(turn, std::move(bunker));
}

// ---- finding and removing ---------------------------------------------------------------------

bool Snapshots::MaySee(const Caller& caller, const Snapshot& row) const {
  Bunker as;  // of whom it was taken, for this question
  as.tenant_id = row.tenant_id;
  as.partner_id = row.partner_id;
  as.owner = row.owner;
  return engine_.MaySeeBunker(caller, as);
}

absl::StatusOr<RowPtr<Snapshot>> Snapshots::Find(const Caller& caller,
                                                 const std::string& ref) const {
  RowPtr<Snapshot> row = state_.snapshots.Find(ref);
  if (row == nullptr) {
    const auto it = state_.snapshot_by_name.find(caller.tenant_id + "/" + ref);
    if (it != state_.snapshot_by_name.end()) row = state_.snapshots.Find(it->second);
  }
  if (row != nullptr && MaySee(caller, *row)) return row;
  return NotFound("snapshot", ref);
}

// A viewer sees its tenant's, and no more than that.
absl::StatusOr<RowPtr<Snapshot>> Snapshots::FindToUse(const Caller& caller,
                                                      const std::string& ref) const {
  ASSIGN_OR_RETURN(RowPtr<Snapshot> row, Find(caller, ref));
  const bool is_own = row->tenant_id == caller.tenant_id && row->owner == caller.user_id;
  if (is_own || caller.manages_all_bunkers) return row;
  return Denied("the snapshot " + row->name + " is another user's",
                "use your own, or ask for the permission scaibunker:admin");
}

Page<Snapshot> Snapshots::List(const Caller& caller, const std::string& bunker,
                               const PageSpec& page) const {
  std::string bunker_id = bunker;
  if (!bunker.empty()) {
    // The name of a live one; one that has ended is known by its id.
    const auto found = engine_.FindBunker(caller, bunker);
    if (found.ok()) bunker_id = (*found)->id;
  }
  const auto& rows = state_.snapshots.rows();
  Page<Snapshot> result;
  auto it = page.after_id.empty() ? rows.end() : rows.lower_bound(page.after_id);
  while (it != rows.begin()) {
    --it;
    if (!bunker_id.empty() && it->second->bunker_id != bunker_id) continue;
    if (!MaySee(caller, *it->second)) continue;
    if (result.rows.size() == page.limit) {
      result.has_more = true;
      break;
    }
    result.rows.push_back(it->second);
  }
  return result;
}

absl::StatusOr<RowPtr<Snapshot>> Snapshots::Delete(Turn& turn, const Caller& caller,
                                                   const std::string& ref) {
  ASSIGN_OR_RETURN(const RowPtr<Snapshot> found, FindToUse(caller, ref));
  if (found->deleting) return found;
  const std::set<std::string>& users = state_.bunkers_of_snapshot.Of(found->id);
  if (!users.empty()) {
    return InUse(std::to_string(users.size()) + " bunker(s) are to begin with the snapshot " +
                 found->name + " and have not come up: wait, or delete them first");
  }
  Snapshot row = *found;
  row.deleting = true;
  row.told_at = turn.now();
  if (!row.assigned) {
    Forget(turn, *found);
    return std::make_shared<const Snapshot>(std::move(row));
  }
  RowPtr<Snapshot> marked = Put(turn, std::move(row));
  if (marked->status == SnapshotStatus::kCreating) {
    TellBunker(turn, *marked, "CANCELLED: the snapshot was deleted while it was being taken");
  }
  return marked;
}

// A guest can't wake up with other CPUs, memory or cards than it fell asleep with.
static absl::Status FitToMemory(const Snapshot& row, CreateBunkerSpec& spec) {
  spec.memory_mb = spec.memory_mb.value_or(row.memory_mb);
  spec.cpu_millicores = spec.cpu_millicores.value_or(row.cpu_millicores);
  if (*spec.memory_mb != row.memory_mb) {
    return Invalid("memory_mb: the snapshot holds the memory of a guest with " +
                   std::to_string(row.memory_mb) + " MiB: leave it out");
  }
  if ((*spec.cpu_millicores + 999) / 1000 != row.vcpus()) {
    return Invalid("cpu_millicores: the snapshot's guest has " + std::to_string(row.vcpus()) +
                   " vCPU(s): ask for as many, or leave it out");
  }
  const bool network_card = spec.network_profile != NetworkProfile::kIsolated;
  if (network_card != row.network_card || spec.network_profile == NetworkProfile::kTransit) {
    return Invalid(row.network_card
                       ? "network_profile: the snapshot's guest has a network card: choose "
                         "registry, allowlisted or unrestricted"
                       : "network_profile: the snapshot's guest has no network card: choose "
                         "isolated");
  }
  if (spec.main) return Invalid("main: what ran in the snapshot's guest goes on: leave it out");
  spec.snapshot_memory = true;
  return absl::OkStatus();
}

absl::StatusOr<RowPtr<Image>> Snapshots::Resolve(const Caller& caller,
                                                 CreateBunkerSpec& spec) const {
  if (!spec.image.empty()) return Invalid("snapshot: stands in place of image: leave one out");
  ASSIGN_OR_RETURN(const RowPtr<Snapshot> row, FindToUse(caller, spec.snapshot));
  if (row->tenant_id != caller.tenant_id) {
    return Denied("the snapshot " + row->name + " belongs to another tenant",
                  "use a key of that tenant");
  }
  if (row->status == SnapshotStatus::kFailed) {
    return Invalid("snapshot: " + row->name + " failed (" + row->error_code +
                   "): take another one");
  }
  if (row->deleting) return InUse("the snapshot " + row->name + " is being deleted: use another");
  if (row->status == SnapshotStatus::kCreating) {
    return InUse("the snapshot " + row->name +
                 " is still being taken: wait until its status is ready");
  }
  if (spec.disk_mb.value_or(row->disk_mb) < row->disk_mb) {
    return Invalid("disk_mb: the snapshot's disk has " + std::to_string(row->disk_mb) +
                   " MiB and can't shrink: ask for at least as much");
  }
  if (row->memory) RETURN_IF_ERROR(FitToMemory(*row, spec));
  RowPtr<Image> image = state_.images.Find(row->image_id);
  BUNKER_CHECK(image != nullptr);
  spec.snapshot = row->id;
  spec.snapshot_worker_id = row->worker_id;
  spec.disk_mb = spec.disk_mb.value_or(row->disk_mb);
  return image;
}

// ---- what workers say -------------------------------------------------------------------------

void Snapshots::OnObservation(Turn& turn, const std::string& worker_id,
                              const SnapshotObservation& seen) {
  using Status = SnapshotObservation::Status;
  const RowPtr<Snapshot> found = state_.snapshots.Find(seen.snapshot_id);
  if (found == nullptr || found->worker_id != worker_id || !found->assigned) {
    // One that it should not have: it is told to remove it. In memory alone, as for bunkers.
    const std::string name = SnapshotRowName(seen.snapshot_id);
    if (seen.status != Status::kReady) return state_.desired.Erase(turn, worker_id + "/" + name);
    if (state_.desired.Find(worker_id + "/" + name) != nullptr) return;
    Log(Severity::kWarning, "snapshot.orphan",
        {{"snapshot", seen.snapshot_id}, {"worker", worker_id}});
    state_.desired.Put(turn, {worker_id, name, state_.NextVersion(),
                              SnapshotAssignment{seen.snapshot_id, "", true, false}});
    return;
  }
  Snapshot row = *found;
  if (seen.status == Status::kReady) {
    if (!row.kept() || row.status == SnapshotStatus::kReady) return;
    row.status = SnapshotStatus::kReady;
    row.size_bytes = seen.size_bytes;
    row.ready_at = turn.now();
    Log(Severity::kInfo, "snapshot.ready",
        {{"snapshot", row.id}, {"worker", worker_id}, {"bytes", row.size_bytes}});
    const RowPtr<Snapshot> ready = Put(turn, std::move(row));
    return TellBunker(turn, *ready, "");
  }
  // Nothing of it is there.
  if (row.deleting) return Forget(turn, *found);
  if (row.status != SnapshotStatus::kFailed) {
    const bool told = seen.status == Status::kFailed;
    return Fail(turn, std::move(row), told ? seen.error_code : "SNAPSHOT_LOST",
                told ? seen.error_message : "the worker no longer has it: take another one",
                /*left_behind=*/false);
  }
  row.assigned = false;
  Put(turn, std::move(row));
}

void Snapshots::OnObservationRemoved(Turn& turn, const std::string& worker_id,
                                     const std::string& id) {
  const RowPtr<Snapshot> found = state_.snapshots.Find(id);
  if (found == nullptr || found->worker_id != worker_id || !found->assigned) {
    return state_.desired.Erase(turn, worker_id + "/" + SnapshotRowName(id));
  }
  if (found->status != SnapshotStatus::kReady || found->deleting) return;
  Fail(turn, *found, "SNAPSHOT_LOST", "the worker no longer has it: take another one",
       /*left_behind=*/true);
}

void Snapshots::OnRejection(Turn& turn, const std::string& worker_id, const std::string& id,
                            uint64_t version, const std::string& message) {
  const RowPtr<Snapshot> found = state_.snapshots.Find(id);
  if (found == nullptr || found->worker_id != worker_id || !found->assigned ||
      found->assignment_version != version || found->status == SnapshotStatus::kReady) {
    return;
  }
  // Who does not take the row has made nothing of it.
  if (found->deleting) return Forget(turn, *found);
  Fail(turn, *found, "REJECTED", "the worker refused: " + message, /*left_behind=*/false);
}

void Snapshots::Tick(Turn& turn) {
  const std::set<std::string> open = state_.open_snapshots;
  for (const std::string& id : open) {
    Snapshot row = *state_.snapshots.Find(id);
    const RowPtr<Worker> worker = state_.workers.Find(row.worker_id);
    if (row.kept()) {
      if (turn.now() - row.created_at < state_.options.snapshot_deadline) continue;
      Fail(turn, std::move(row), "SNAPSHOT_TIMEOUT",
           "the worker (" + std::string(NameOf(worker->status)) +
               ") did not finish it within snapshots.deadline_s: take another one",
           /*left_behind=*/true);
      continue;
    }
    if (worker->status == WorkerStatus::kOffline) continue;
    const absl::Time since = std::max(row.told_at, worker->status_since);
    if (turn.now() - since < state_.options.stop_resend) continue;
    // Not confirmed: the same row under a new version makes the worker look again.
    row.told_at = turn.now();
    state_.desired.Erase(turn, row.worker_id + "/" + SnapshotRowName(id));
    Put(turn, std::move(row));
  }
}

void Snapshots::FailAllOn(Turn& turn, const std::string& worker_id) {
  const std::set<std::string> ids = state_.snapshots_of_worker.Of(worker_id);
  for (const std::string& id : ids) {
    Snapshot row = *state_.snapshots.Find(id);
    if (row.deleting) {
      Forget(turn, row);
    } else if (row.status == SnapshotStatus::kFailed) {
      row.assigned = false;
      Put(turn, std::move(row));
    } else {
      Fail(turn, std::move(row), "WORKER_REMOVED",
           "its worker was removed by force, and the file with it", /*left_behind=*/false);
    }
  }
  // Rows that told it to remove what it should not have.
  std::vector<std::string> rest;
  const std::string prefix = worker_id + "/snapshots/";
  const auto& rows = state_.desired.rows();
  for (auto it = rows.lower_bound(prefix); it != rows.end() && it->first.rfind(prefix, 0) == 0;
       ++it) {
    rest.push_back(it->first);
  }
  for (const std::string& key : rest) state_.desired.Erase(turn, key);
}

}  // namespace bunker::controller
