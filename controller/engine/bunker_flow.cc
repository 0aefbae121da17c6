// Bunkers: creating with a place on a worker, finding, ending.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "common/base/id.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/engine/bridges.h"
#include "controller/engine/engine.h"
#include "controller/engine/quotas.h"
#include "controller/engine/scans.h"
#include "controller/engine/snapshots.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

constexpr uint32_t kMinCpuMillicores = 50;
constexpr uint32_t kMinMemoryMb = 64;
constexpr uint32_t kMinDiskMb = 64;
constexpr uint32_t kMaxReplicas = 100;
constexpr size_t kSuffixLength = 5;
constexpr size_t kMaxNameLength = 63;
constexpr absl::Duration kUseGranularity = absl::Minutes(1);

// The API refuses these with the field's name; here they could do harm.
absl::Status CheckBuilt(const CreateBunkerSpec& spec) {
  if (!spec.start && spec.lifecycle_mode == LifecycleMode::kEphemeral) {
    return ReasonError(absl::StatusCode::kPermissionDenied, "LIFECYCLE_MODE_DENIED",
                       "start: an ephemeral bunker can't be started later: use lifecycle_mode "
                       "session or persistent, or leave start out");
  }
  if ((spec.network_profile == NetworkProfile::kTransit) == spec.interfaces.empty())
    return Invalid("interfaces: they and network_profile transit belong together");
  return absl::OkStatus();
}

std::string RandomSuffix(Rng& rng) {
  constexpr std::string_view kAlphabet = "abcdefghijklmnopqrstuvwxyz0123456789";
  std::string text;
  for (size_t i = 0; i < kSuffixLength; ++i) text += kAlphabet[rng.Below(kAlphabet.size())];
  return text;
}

}  // namespace

absl::StatusOr<std::string> Engine::BunkerNameFor(const Caller& caller, const Image& image,
                                                  const CreateBunkerSpec& spec, uint64_t copy) {
  State& s = *state_;
  const auto taken = [&](const std::string& name) {
    return s.bunker_by_name.count(caller.tenant_id + "/" + name) > 0;
  };
  if (!spec.name.empty()) {
    std::string name = copy == 0 ? spec.name : spec.name + "-" + std::to_string(copy);
    if (!taken(name)) return name;
    return ReasonError(
        absl::StatusCode::kAlreadyExists, "SLUG_CONFLICT",
        "a live bunker is named " + name + ": choose another name, or delete that one first");
  }
  std::string base = image.name.substr(0, kMaxNameLength - kSuffixLength - 1);
  while (!base.empty() && (base.back() == '.' || base.back() == '-' || base.back() == '_')) {
    base.pop_back();
  }
  for (int tries = 0; tries < 100; ++tries) {
    std::string name = base + "-" + RandomSuffix(s.rng);
    if (!taken(name)) return name;
  }
  return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                     "no free name was found: give the bunker one");
}

absl::StatusOr<RowPtr<Image>> Engine::CheckCreate(const Caller& caller,
                                                  CreateBunkerSpec& spec) const {
  RETURN_IF_ERROR(CheckBuilt(spec));
  if (caller.tenant_id.empty()) return Invalid("a bunker belongs to a tenant: use a tenant's key");
  if (spec.replicas.value_or(0) > kMaxReplicas) return Invalid("replicas: at most 100");
  const bool is_copy = !spec.snapshot.empty();
  ASSIGN_OR_RETURN(RowPtr<Image> image, is_copy ? snapshots_->Resolve(caller, spec)
                                                : FindImage(caller, spec.image));
  // A snapshot goes on as the bunker would that it was taken of.
  if (!image->active && !is_copy) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, "IMAGE_INACTIVE",
                       "the image " + image->name +
                           " is deactivated: register it again under a new name, or use another");
  }
  RETURN_IF_ERROR(scans_->CheckGate(*image));
  RETURN_IF_ERROR(bridges_->Resolve(caller, spec));
  if (spec.cpu_millicores.value_or(image->default_cpu_millicores) < kMinCpuMillicores) {
    return Invalid("cpu_millicores: at least 50");
  }
  if (spec.memory_mb.value_or(image->default_memory_mb) < kMinMemoryMb) {
    return Invalid("memory_mb: at least 64");
  }
  if (spec.disk_mb.value_or(image->default_disk_mb) < kMinDiskMb) {
    return Invalid("disk_mb: at least 64");
  }
  return image;
}

absl::StatusOr<RowPtr<Bunker>> Engine::CreateBunker(Turn& turn, const Caller& caller,
                                                    const CreateBunkerSpec& spec,
                                                    PlacementExplanation* why) {
  ASSIGN_OR_RETURN(std::vector<RowPtr<Bunker>> rows, CreateBunkers(turn, caller, spec, why));
  return std::move(rows.front());
}

absl::StatusOr<std::vector<RowPtr<Bunker>>> Engine::CreateBunkers(Turn& turn, const Caller& caller,
                                                                  const CreateBunkerSpec& asked,
                                                                  PlacementExplanation* why) {
  State& s = *state_;
  CreateBunkerSpec spec = asked;
  ASSIGN_OR_RETURN(const RowPtr<Image> image, CheckCreate(caller, spec));
  const uint64_t count = uint64_t{1} + spec.replicas.value_or(0);
  const size_t live = s.live_of_tenant.Of(caller.tenant_id).size();
  if (live + count > s.options.max_live_bunkers_per_tenant) {
    return ReasonError(absl::StatusCode::kResourceExhausted, "BUNKER_QUOTA_EXCEEDED",
                       "the tenant may have " +
                           std::to_string(s.options.max_live_bunkers_per_tenant) +
                           " live bunkers and has " + std::to_string(live) + ": delete some");
  }
  PlacementRequest request = RequestFor(*image, spec);
  QuotaUsage each;
  each.bunkers = 1;
  each.persistent = spec.lifecycle_mode == LifecycleMode::kPersistent ? 1 : 0;
  each.cpu_millicores = request.wanted.cpu_millicores;
  each.memory_mb = request.wanted.memory_mb - kVmOverheadMb;
  each.disk_mb = request.wanted.disk_mb;
  each.gpus = spec.gpu_count;
  RETURN_IF_ERROR(quotas_->Check(caller.user_id, each, count));
  const PlacementQuery query = QueryFor(caller, *image, request);
  std::vector<RowPtr<Bunker>> rows;
  const size_t savepoint = turn.Savepoint();
  // All or none: what the first ones took is given back where a later one finds no place.
  const auto undone = [&](const absl::Status& error) {
    turn.RollbackTo(savepoint);
    return error;
  };
  for (uint64_t i = 0; i < count; ++i) {
    absl::StatusOr<std::string> name = BunkerNameFor(caller, *image, spec, i);
    if (!name.ok()) return undone(name.status());
    const auto choice = s.placement.Find(query, turn.now(), s.rng);
    if (!choice) {
      PlacementExplanation explanation = ExplainFor(caller, *image, query, turn.now());
      const std::string some = i == 0
                                   ? ""
                                   : "only " + std::to_string(i) + " of " + std::to_string(count) +
                                         " bunkers have a place, and all or none are created; ";
      const absl::Status error = ReasonError(absl::StatusCode::kUnavailable, explanation.error_code,
                                             some + explanation.error_message);
      if (why != nullptr) *why = std::move(explanation);
      return undone(error);
    }
    rows.push_back(PlaceBunker(turn, caller, *image, spec, *std::move(name), *choice));
  }
  if (spec.start) return rows;
  // Each had the room of one that runs, so that all of them can be started.
  for (RowPtr<Bunker>& row : rows) {
    Bunker parked = *row;
    Advance(parked, BunkerStatus::kStopped, turn.now());
    parked.goal = BunkerGoal::kStop;
    parked.halted = true;
    row = PutBunker(turn, std::move(parked));
  }
  return rows;
}

// Its clocks, and the place that was found for it.
static void BeginLife(Bunker& row, const CreateBunkerSpec& spec, bool image_ready,
                      absl::Time now) {
  row.created_at = row.updated_at = row.last_activity_at = now;
  if (spec.received_at != absl::InfinitePast() && now > spec.received_at) {
    row.timings.queue_ms = absl::ToDoubleMilliseconds(now - spec.received_at);
  }
  if (row.max_lifetime_s > 0) row.expires_at = now + absl::Seconds(row.max_lifetime_s);
  Advance(row, BunkerStatus::kProvisioning, now);
  row.assigned = true;
  row.room_held = true;
  if (image_ready) row.boot_since = now;
}

RowPtr<Bunker> Engine::PlaceBunker(Turn& turn, const Caller& caller, const Image& image,
                                   const CreateBunkerSpec& spec, std::string name,
                                   const PlacementChoice& where) {
  State& s = *state_;
  Bunker row;
  row.id = s.MakeId("bnk_", turn.now());
  row.name = std::move(name);
  row.tenant_id = caller.tenant_id;
  row.partner_id = caller.partner_id;
  row.owner = caller.user_id;
  row.lifecycle_mode = spec.lifecycle_mode;
  row.network_profile = spec.network_profile;
  row.network_allowlist = spec.network_allowlist;
  row.interfaces = spec.interfaces;
  bridges_->FillMacs(row);
  row.bandwidth_mbit = spec.bandwidth_mbit;
  row.disk_bytes_per_s = spec.disk_bytes_per_s;
  row.disk_iops = spec.disk_iops;
  row.cpu_millicores = spec.cpu_millicores.value_or(image.default_cpu_millicores);
  row.memory_mb = spec.memory_mb.value_or(image.default_memory_mb);
  row.disk_mb = spec.disk_mb.value_or(image.default_disk_mb);
  const LifetimeDefaults defaults = DefaultsOf(spec.lifecycle_mode);
  row.max_lifetime_s = spec.max_lifetime_s.value_or(defaults.max_lifetime_s);
  row.idle_timeout_s = spec.idle_timeout_s.value_or(defaults.idle_timeout_s);
  row.on_idle = spec.on_idle;
  row.session_type = spec.session_type;
  row.session_ref = spec.session_ref;
  row.label_set = spec.label_set;
  row.worker_labels = spec.worker_labels;
  row.env_vars = spec.env_vars;
  row.main = spec.main;
  if (row.main) row.main_status = MainStatus();
  row.worker_id = where.worker_id;
  row.snapshot_id = spec.snapshot;
  row.snapshot_memory = spec.snapshot_memory;
  row.image_id = image.id;
  row.image_name = image.name;
  if (image.resolved) row.image_digest = image.resolved->manifest_digest;
  BeginLife(row, spec, where.image_ready, turn.now());
  // The bunker's row first: it is what makes the image in use there.
  RowPtr<Bunker> placed = PutBunker(turn, std::move(row));
  if (!where.image_ready) {
    WantEntry(turn, image, where.worker_id, /*by_group=*/false);
    const RowPtr<CacheEntry> cold =
        s.entries.Find(CacheEntry::Key(image.id, where.worker_id));
    if (cold->status == CacheStatus::kFailed) RetryEntry(turn, *cold);
    ElectResolver(turn, image);
    // Its file had not gone yet: nothing is going to become ready, the boot can begin.
    const RowPtr<CacheEntry> revived =
        s.entries.Find(CacheEntry::Key(image.id, where.worker_id));
    if (revived->assigned && revived->status == CacheStatus::kReady) {
      Bunker booting = *s.bunkers.Find(placed->id);
      booting.boot_since = turn.now();
      placed = PutBunker(turn, std::move(booting));
    }
  }
  const RowPtr<CacheEntry> used = s.entries.Find(CacheEntry::Key(image.id, where.worker_id));
  // To the minute: a busy image must not cost a second row with each of its bunkers.
  if (turn.now() - used->last_used_at >= kUseGranularity) {
    CacheEntry entry = *used;
    entry.last_used_at = turn.now();
    PutEntry(turn, std::move(entry));
  }
  Log(Severity::kInfo, "bunker.placed",
      {{"bunker", placed->id}, {"worker", placed->worker_id}, {"image", image.id}});
  return placed;
}

absl::StatusOr<RowPtr<Bunker>> Engine::FindBunker(const Caller& caller,
                                                  const std::string& ref) const {
  const State& s = *state_;
  const auto visible = [&](const std::string& id) -> RowPtr<Bunker> {
    RowPtr<Bunker> row = s.bunkers.Find(id);
    return row != nullptr && MaySeeBunker(caller, *row) ? row : nullptr;
  };
  if (RowPtr<Bunker> row = visible(ref); row != nullptr) return row;
  if (const std::string id = IdFromUuid("bnk_", ref); !id.empty()) {
    if (RowPtr<Bunker> row = visible(id); row != nullptr) return row;
  }
  const auto it = s.bunker_by_name.find(caller.tenant_id + "/" + ref);
  if (it != s.bunker_by_name.end()) {
    if (RowPtr<Bunker> row = visible(it->second); row != nullptr) return row;
  }
  return NotFound("bunker", ref);
}

// The worker is told to end it; the row is final when the worker has confirmed.
void Engine::StopBunker(Turn& turn, Bunker row, const std::string& reason) {
  if (row.stop_wanted) return;
  if (row.status != BunkerStatus::kStopping) Advance(row, BunkerStatus::kStopping, turn.now());
  row.stop_wanted = true;
  row.stopping_at = turn.now();
  row.status_reason = reason;
  PutBunker(turn, std::move(row));
}

// Final at once; the worker is told to clear what is left, and holds its room until it has.
void Engine::FailBunker(Turn& turn, Bunker row, const std::string& reason,
                        const std::string& message) {
  Log(Severity::kWarning, "bunker.failed",
      {{"bunker", row.id}, {"worker", row.worker_id}, {"reason", reason}, {"message", message}});
  state_->placement.NoteFailure(row.worker_id, turn.now());
  row.status_message = message.substr(0, 2048);
  row.stop_wanted = true;
  row.stopping_at = turn.now();
  row.active_execs = 0;
  Terminate(row, BunkerStatus::kFailed, reason.substr(0, 256), turn.now());
  PutBunker(turn, std::move(row));
}

// A viewer sees its tenant's bunkers, and no more than that.
absl::StatusOr<RowPtr<Bunker>> Engine::FindBunkerToUse(const Caller& caller,
                                                       const std::string& ref) const {
  ASSIGN_OR_RETURN(RowPtr<Bunker> row, FindBunker(caller, ref));
  const bool is_own = row->tenant_id == caller.tenant_id && row->owner == caller.user_id;
  if (is_own || caller.manages_all_bunkers) return row;
  return Denied("the bunker " + row->name + " is another user's",
                "use your own, or ask for the permission scaibunker:admin");
}

absl::StatusOr<std::vector<NetworkEvent>> Engine::NetworkEvents(const Caller& caller,
                                                                const std::string& ref) const {
  ASSIGN_OR_RETURN(const RowPtr<Bunker> row, FindBunker(caller, ref));
  const auto it = state_->network_events.find(row->id);
  return it == state_->network_events.end() ? std::vector<NetworkEvent>() : it->second;
}

absl::StatusOr<RowPtr<Bunker>> Engine::DeleteBunker(Turn& turn, const Caller& caller,
                                                    const std::string& ref,
                                                    std::optional<uint32_t> incarnation) {
  ASSIGN_OR_RETURN(const RowPtr<Bunker> found, FindBunkerToUse(caller, ref));
  RETURN_IF_ERROR(CheckIncarnation(*found, incarnation));
  if (found->live()) StopBunker(turn, *found, "DELETED");
  return state_->bunkers.Find(found->id);
}

static absl::Status CheckRuns(const Bunker& row) {
  if (row.status == BunkerStatus::kRunning && row.goal == BunkerGoal::kRun) {
    return absl::OkStatus();
  }
  const std::string reason = row.status_reason.empty() ? "" : " (" + row.status_reason + ")";
  const std::string remedy = !row.live() || row.stop_wanted      ? "create a new one"
                             : row.goal == BunkerGoal::kPause ? "resume it"
                             : row.goal == BunkerGoal::kStop  ? "start it"
                                                              : "wait until it is running";
  return ReasonError(absl::StatusCode::kFailedPrecondition, "BUNKER_NOT_RUNNING",
                     "the bunker " + row.name + " is " + std::string(NameOf(row.status)) + reason +
                         ": " + remedy);
}

absl::StatusOr<RowPtr<Bunker>> Engine::FindRunningBunker(const Caller& caller,
                                                         const std::string& ref) const {
  ASSIGN_OR_RETURN(RowPtr<Bunker> row, FindBunker(caller, ref));
  RETURN_IF_ERROR(CheckRuns(*row));
  return row;
}

absl::StatusOr<RowPtr<Bunker>> Engine::BeginExec(Turn& turn, const Caller& caller,
                                                 const std::string& ref) {
  ASSIGN_OR_RETURN(RowPtr<Bunker> row, FindBunkerToUse(caller, ref));
  RETURN_IF_ERROR(CheckRuns(*row));
  State::Activity& activity = state_->activities[row->id];
  activity.last = turn.now();
  ++activity.open;
  return row;
}

void Engine::EndExec(Turn& turn, const std::string& bunker_id) {
  const auto it = state_->activities.find(bunker_id);
  if (it == state_->activities.end()) return;  // it has ended meanwhile
  it->second.last = turn.now();
  if (it->second.open > 0) --it->second.open;
}

}  // namespace bunker::controller
