// Workers: joining, connecting, and being seen.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/engine/engine.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

constexpr absl::Duration kMaxTokenTtl = absl::Minutes(10);
constexpr size_t kMaxOpenTokens = 1000;

}  // namespace

WorkerView Engine::ViewOf(const Caller& caller, RowPtr<Worker> worker) const {
  const State& s = *state_;
  WorkerView view;
  view.last_heartbeat = LastHeartbeat(worker->id);
  view.allocated = s.placement.Allocated(worker->id);
  view.room = RoomOf(worker->facts.capacity, s.options.placement);
  for (const std::string& image_id : s.images_of_worker.Of(worker->id)) {
    const RowPtr<Image> image = s.images.Find(image_id);
    const RowPtr<CacheEntry> entry = s.entries.Find(CacheEntry::Key(image_id, worker->id));
    if (entry->status == CacheStatus::kReady && MaySee(caller, image->ownership)) {
      view.cached_image_ids.push_back(image_id);
    }
  }
  view.amounts_visible = MayChange(caller, worker->ownership);
  view.worker = std::move(worker);
  return view;
}

absl::StatusOr<WorkerView> Engine::FindWorker(const Caller& caller,
                                              const std::string& ref) const {
  const State& s = *state_;
  RowPtr<Worker> worker = s.workers.Find(ref);
  if (worker != nullptr && MaySeeWorker(caller, *worker)) return ViewOf(caller, std::move(worker));
  for (const std::string& owner :
       {"tenant:" + caller.tenant_id, "partner:" + caller.partner_id, std::string("platform")}) {
    const auto it = s.worker_by_name.find(owner + "/" + ref);
    if (it == s.worker_by_name.end()) continue;
    worker = s.workers.Find(it->second);
    if (MaySeeWorker(caller, *worker)) return ViewOf(caller, std::move(worker));
  }
  return NotFound("worker", ref);
}

std::vector<WorkerView> Engine::ListWorkers(const Caller& caller,
                                            std::optional<WorkerStatus> status,
                                            const PageSpec& page, bool* has_more) const {
  const auto& rows = state_->workers.rows();
  std::vector<WorkerView> views;
  *has_more = false;
  auto it = page.after_id.empty() ? rows.end() : rows.lower_bound(page.after_id);
  while (it != rows.begin()) {
    --it;
    if (!MaySeeWorker(caller, *it->second)) continue;
    if (status && it->second->status != *status) continue;
    if (views.size() == page.limit) {
      *has_more = true;
      break;
    }
    views.push_back(ViewOf(caller, it->second));
  }
  return views;
}

absl::StatusOr<RowPtr<JoinToken>> Engine::CreateJoinToken(Turn& turn,
                                                          const CreateJoinTokenSpec& spec) {
  State& s = *state_;
  if (spec.worker_name.empty()) return Invalid("worker: a name is required");
  if (spec.sha256.size() != 64) return Invalid("the token's hash is malformed");
  if (spec.ttl <= absl::ZeroDuration() || spec.ttl > kMaxTokenTtl) {
    return Invalid("ttl_s: 1 to 600 seconds");
  }
  if (!IsWorkerName(spec.worker_name)) {
    return Invalid(
        "name: 1 to 128 letters, digits, dots, dashes or underscores, beginning with a "
        "letter or digit");
  }
  size_t open = 0;
  for (const auto& [id, token] : s.join_tokens.rows()) {
    if (token->ownership == spec.ownership && !token->used_at && token->expires_at > turn.now()) {
      ++open;
    }
  }
  if (open >= kMaxOpenTokens) {
    return ReasonError(absl::StatusCode::kResourceExhausted, "RATE_LIMITED",
                       "too many join tokens are waiting to be used: wait for some to expire");
  }
  JoinToken token;
  token.id = s.MakeId("wtk_", turn.now());
  token.sha256 = spec.sha256;
  token.worker_name = spec.worker_name;
  token.ownership = spec.ownership;
  token.shared = spec.shared;
  token.labels = spec.labels;
  token.created_at = turn.now();
  token.expires_at = turn.now() + spec.ttl;
  return s.join_tokens.Put(turn, std::move(token));
}

absl::StatusOr<RowPtr<Worker>> Engine::Join(Turn& turn, const std::string& token_sha256,
                                            const std::string& worker_name,
                                            const std::string& credential_sha256) {
  State& s = *state_;
  const absl::Status refused = ReasonError(
      absl::StatusCode::kUnauthenticated, "AUTH_TOKEN_INVALID",
      "the join token is unknown, used, expired or for another worker name: make a new one with "
      "`bunker-controller join-token --worker NAME`");
  if (credential_sha256.size() != 64) return Invalid("the credential's hash is malformed");
  const auto it = s.token_by_sha256.find(token_sha256);
  if (it == s.token_by_sha256.end()) return refused;
  JoinToken token = *s.join_tokens.Find(it->second);
  if (token.used_at || turn.now() >= token.expires_at || token.worker_name != worker_name) {
    return refused;
  }
  Worker worker;
  const auto named = s.worker_by_name.find(OwnerKey(token.ownership) + "/" + worker_name);
  if (named != s.worker_by_name.end()) {
    worker = *s.workers.Find(named->second);
  } else {
    worker.id = s.MakeId("wrk_", turn.now());
    worker.name = worker_name;
    worker.ownership = token.ownership;
    worker.created_at = worker.status_since = worker.last_heartbeat = turn.now();
  }
  worker.shared = token.shared;
  // One that joins anew with a bare token keeps what an operator gave it meanwhile.
  if (!token.labels.empty()) worker.token_labels = token.labels;
  worker.credential_sha256 = credential_sha256;
  token.used_at = turn.now();
  token.worker_id = worker.id;
  s.join_tokens.Put(turn, std::move(token));
  Log(Severity::kInfo, "worker.joined", {{"worker", worker.id}, {"name", worker.name}});
  return s.workers.Put(turn, std::move(worker));
}

absl::StatusOr<RowPtr<Worker>> Engine::AuthenticateWorker(
    const std::string& credential_sha256) const {
  const auto it = state_->worker_by_credential.find(credential_sha256);
  if (it == state_->worker_by_credential.end()) {
    return ReasonError(absl::StatusCode::kUnauthenticated, "AUTH_TOKEN_INVALID",
                       "the worker's credential is unknown or revoked: join again with a new "
                       "token");
  }
  return state_->workers.Find(it->second);
}

absl::StatusOr<WorkerSession> Engine::ConnectWorker(Turn& turn, const std::string& worker_id,
                                                    const WorkerFacts& facts,
                                                    const std::string& boot_id,
                                                    const std::string& agent_version) {
  State& s = *state_;
  const RowPtr<Worker> found = s.workers.Find(worker_id);
  if (found == nullptr) return NotFound("worker", worker_id);
  const bool rebooted = !found->boot_id.empty() && found->boot_id != boot_id;
  Worker worker = *found;
  worker.facts = facts;
  worker.boot_id = boot_id;
  worker.agent_version = agent_version;
  worker.last_heartbeat = turn.now();
  s.workers.Put(turn, std::move(worker));
  s.sessions[worker_id].connected = true;
  OnHeartbeat(turn, worker_id);
  if (rebooted) EndRebooted(turn, worker_id);
  ElectOn(turn, worker_id);
  Settle(turn);  // the rows below are to be what it gets

  WorkerSession session;
  session.worker = s.workers.Find(worker_id);
  const auto& rows = s.desired.rows();
  for (auto it = rows.lower_bound(worker_id + "/");
       it != rows.end() && it->second->worker_id == worker_id; ++it) {
    session.desired.push_back(it->second);
  }
  const uint64_t disk_version = s.workers.Find(worker_id)->disk_version;
  if (disk_version != 0) session.observations_held[kDiskRowName] = disk_version;
  for (const std::string& id : s.images_of_worker.Of(worker_id)) {
    const RowPtr<CacheEntry> entry = s.entries.Find(CacheEntry::Key(id, worker_id));
    if (entry->observation_version != 0) {
      session.observations_held[ImageRowName(id)] = entry->observation_version;
    }
  }
  for (const std::string& id : s.bunkers_of_worker.Of(worker_id)) {
    const RowPtr<Bunker> row = s.bunkers.Find(id);
    if (row->observation_version != 0) {
      session.observations_held[BunkerRowName(id)] = row->observation_version;
    }
  }
  return session;
}

// The host came up anew: no VM of before can be alive.
void Engine::EndRebooted(Turn& turn, const std::string& worker_id) {
  const std::set<std::string> ids = state_->bunkers_of_worker.Of(worker_id);
  for (const std::string& id : ids) {
    const RowPtr<Bunker> row = state_->bunkers.Find(id);
    if (!row->live() || row->observation_version == 0 || row->halted) continue;
    if (row->lifecycle_mode == LifecycleMode::kPersistent && !row->stop_wanted) {
      if (row->goal != BunkerGoal::kStop) Relaunch(turn, row).status().IgnoreError();
      continue;
    }
    FailBunker(turn, *row, "HOST_REBOOTED", "the worker's host was rebooted");
  }
}

void Engine::ElectOn(Turn& turn, const std::string& worker_id) {
  const std::set<std::string> ids = state_->images_of_worker.Of(worker_id);
  for (const std::string& id : ids) ElectResolver(turn, *state_->images.Find(id));
}

void Engine::DisconnectWorker(Turn&, const std::string& worker_id) {
  const auto it = state_->sessions.find(worker_id);
  if (it != state_->sessions.end()) it->second.connected = false;
}

void Engine::OnHeartbeat(Turn& turn, const std::string& worker_id) {
  State& s = *state_;
  const RowPtr<Worker> found = s.workers.Find(worker_id);
  if (found == nullptr) return;
  s.sessions[worker_id].last_heartbeat = turn.now();
  const WorkerStatus status =
      found->draining ? WorkerStatus::kDraining : WorkerStatus::kOnline;
  if (found->status == status) return;
  SetWorkerStatus(turn, *found, status);
}

void Engine::SetWorkerStatus(Turn& turn, const Worker& found, WorkerStatus status) {
  State& s = *state_;
  Log(Severity::kInfo, "worker.status",
      {{"worker", found.id}, {"name", found.name}, {"from", NameOf(found.status)},
       {"to", NameOf(status)}});
  Worker worker = found;
  const bool back = worker.status == WorkerStatus::kOffline;
  worker.status = status;
  worker.status_since = turn.now();
  worker.last_heartbeat = LastHeartbeat(found.id);
  s.workers.Put(turn, std::move(worker));
  const std::set<std::string> ids = s.bunkers_of_worker.Of(found.id);
  for (const std::string& id : ids) {
    Bunker row = *s.bunkers.Find(id);
    if (!row.live() || row.status == BunkerStatus::kStopping) continue;
    if (status == WorkerStatus::kOffline && row.status_reason.empty()) {
      row.status_reason = "WORKER_OFFLINE";
    } else if (back && row.status_reason == "WORKER_OFFLINE") {
      row.status_reason.clear();
    } else {
      continue;
    }
    row.updated_at = turn.now();
    PutBunker(turn, std::move(row));
  }
  ElectOn(turn, found.id);
}

absl::Time Engine::LastHeartbeat(const std::string& worker_id) const {
  const RowPtr<Worker> worker = state_->workers.Find(worker_id);
  const auto it = state_->sessions.find(worker_id);
  const absl::Time stored = worker == nullptr ? absl::InfinitePast() : worker->last_heartbeat;
  return it == state_->sessions.end() ? stored : std::max(stored, it->second.last_heartbeat);
}

}  // namespace bunker::controller
