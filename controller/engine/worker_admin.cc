#include "controller/engine/worker_admin.h"

#include <set>
#include <utility>
#include <vector>

#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/engine/snapshots.h"
#include "controller/engine/state.h"

namespace bunker::controller {

absl::StatusOr<Ownership> WorkerAdmin::OwnerFor(const Caller& caller, Scope scope,
                                                const std::string& tenant_id,
                                                const std::string& partner_id) const {
  const Engine::State& s = *engine_.state_;
  if (!tenant_id.empty() && scope != Scope::kTenant) {
    return Invalid("tenant_id: belongs to scope tenant: leave it out");
  }
  if (!partner_id.empty() && scope != Scope::kPartner) {
    return Invalid("partner_id: belongs to scope partner: leave it out");
  }
  if (!tenant_id.empty() && tenant_id != caller.tenant_id) {
    const RowPtr<Tenant> tenant = s.tenants.Find(tenant_id);
    const bool is_theirs = tenant != nullptr && caller.role == Role::kPartnerAdmin &&
                           tenant->partner_id == caller.partner_id;
    if (tenant == nullptr || !(caller.super_admin() || is_theirs)) {
      return NotFound("tenant", tenant_id);
    }
    return Ownership{Scope::kTenant, tenant->id, tenant->partner_id};
  }
  if (!partner_id.empty() && partner_id != caller.partner_id) {
    if (!caller.super_admin() || s.partners.Find(partner_id) == nullptr) {
      return NotFound("partner", partner_id);
    }
    return Ownership{Scope::kPartner, "", partner_id};
  }
  if (scope == Scope::kPartner && caller.partner_id.empty()) {
    return Invalid("partner_id: the caller belongs to no partner: name one");
  }
  return OwnershipFor(caller, scope);
}

// ---- tokens -----------------------------------------------------------------------------------

absl::StatusOr<RowPtr<JoinToken>> WorkerAdmin::FindToken(const Caller& caller,
                                                         const std::string& id) const {
  RowPtr<JoinToken> token = engine_.state_->join_tokens.Find(id);
  if (token == nullptr || !MayChange(caller, token->ownership)) {
    return NotFound("worker token", id);
  }
  return token;
}

Page<JoinToken> WorkerAdmin::ListTokens(const Caller& caller, const PageSpec& page) const {
  const auto& rows = engine_.state_->join_tokens.rows();
  Page<JoinToken> result;
  auto it = page.after_id.empty() ? rows.end() : rows.lower_bound(page.after_id);
  while (it != rows.begin()) {
    --it;
    if (!MayChange(caller, it->second->ownership)) continue;
    if (result.rows.size() == page.limit) {
      result.has_more = true;
      break;
    }
    result.rows.push_back(it->second);
  }
  return result;
}

absl::StatusOr<RowPtr<JoinToken>> WorkerAdmin::DeleteToken(Turn& turn, const Caller& caller,
                                                           const std::string& id) {
  ASSIGN_OR_RETURN(RowPtr<JoinToken> token, FindToken(caller, id));
  engine_.state_->join_tokens.Erase(turn, token->id);
  return token;
}

// ---- workers ----------------------------------------------------------------------------------

absl::StatusOr<WorkerView> WorkerAdmin::FindOwn(const Caller& caller,
                                                const std::string& ref) const {
  ASSIGN_OR_RETURN(WorkerView view, engine_.FindWorker(caller, ref));
  if (MayChange(caller, view.worker->ownership)) return view;
  return Denied("the worker belongs to scope " + std::string(NameOf(view.worker->ownership.scope)),
                "only its owners may do this: ask them");
}

absl::StatusOr<WorkerView> WorkerAdmin::SetLabels(Turn& turn, const Caller& caller,
                                                  const std::string& ref,
                                                  std::map<std::string, std::string> labels) {
  ASSIGN_OR_RETURN(const WorkerView view, FindOwn(caller, ref));
  if (view.worker->token_labels == labels) return view;
  Worker worker = *view.worker;
  worker.token_labels = std::move(labels);
  engine_.state_->workers.Put(turn, std::move(worker));
  return engine_.FindWorker(caller, view.worker->id);
}

absl::StatusOr<WorkerView> WorkerAdmin::Drain(Turn& turn, const Caller& caller,
                                              const std::string& ref, const DrainSpec& spec) {
  ASSIGN_OR_RETURN(const WorkerView view, FindOwn(caller, ref));
  Worker worker = *view.worker;
  worker.draining = true;
  worker.drain_deadline.reset();
  if (spec.deadline) worker.drain_deadline = turn.now() + *spec.deadline;
  worker.drain_then = spec.then;
  const RowPtr<Worker> drained = engine_.state_->workers.Put(turn, std::move(worker));
  if (drained->status == WorkerStatus::kOnline) {
    engine_.SetWorkerStatus(turn, *drained, WorkerStatus::kDraining);
  }
  return engine_.FindWorker(caller, drained->id);
}

absl::StatusOr<WorkerView> WorkerAdmin::Resume(Turn& turn, const Caller& caller,
                                               const std::string& ref) {
  ASSIGN_OR_RETURN(const WorkerView view, FindOwn(caller, ref));
  if (!view.worker->draining) return view;
  Worker worker = *view.worker;
  worker.draining = false;
  worker.drain_deadline.reset();
  worker.drain_then = DrainThen::kWait;
  const RowPtr<Worker> resumed = engine_.state_->workers.Put(turn, std::move(worker));
  if (resumed->status == WorkerStatus::kDraining) {
    engine_.SetWorkerStatus(turn, *resumed, WorkerStatus::kOnline);
  }
  return engine_.FindWorker(caller, resumed->id);
}

void WorkerAdmin::Tick(Turn& turn) {
  Engine::State& s = *engine_.state_;
  for (const std::string& id : s.draining_workers) {
    const RowPtr<Worker> worker = s.workers.Find(id);
    const bool due = worker->drain_then == DrainThen::kStop && worker->drain_deadline &&
                     turn.now() >= *worker->drain_deadline;
    if (!due) continue;
    const std::set<std::string> bunkers = s.bunkers_of_worker.Of(id);  // a copy: it changes
    for (const std::string& bunker : bunkers) {
      const RowPtr<Bunker> row = s.bunkers.Find(bunker);
      if (row->live()) engine_.EndOrHalt(turn, *row, "WORKER_DRAINED");
    }
  }
}

// ---- removal ----------------------------------------------------------------------------------

absl::StatusOr<WorkerView> WorkerAdmin::Remove(Turn& turn, const Caller& caller,
                                               const std::string& ref, bool force) {
  Engine::State& s = *engine_.state_;
  ASSIGN_OR_RETURN(WorkerView view, FindOwn(caller, ref));
  const std::string id = view.worker->id;
  const size_t left = s.bunkers_of_worker.Of(id).size();
  const size_t kept = s.snapshots_of_worker.Of(id).size();
  if (left == 0 && kept > 0 && !force) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, "RESOURCE_IN_USE",
                       "the worker has " + std::to_string(kept) +
                           " snapshots: delete them first, or remove it with force=true, which "
                           "fails them");
  }
  if (left > 0 && !force) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, "RESOURCE_IN_USE",
                       "the worker has " + std::to_string(left) +
                           " bunkers: drain it and wait until they have ended, or remove it with "
                           "force=true, which fails them");
  }
  EndBunkers(turn, id);
  engine_.snapshots().FailAllOn(turn, id);
  DropFromGroups(turn, id);
  DropCache(turn, id);
  s.sessions.erase(id);
  s.workers.Erase(turn, id);
  Log(Severity::kInfo, "worker.removed", {{"worker", id}, {"name", view.worker->name}});
  return view;
}

void WorkerAdmin::EndBunkers(Turn& turn, const std::string& worker_id) {
  Engine::State& s = *engine_.state_;
  const std::set<std::string> ids = s.bunkers_of_worker.Of(worker_id);
  for (const std::string& id : ids) {
    const RowPtr<Bunker> row = s.bunkers.Find(id);
    if (row->live() && row->status != BunkerStatus::kStopping) {
      engine_.FailBunker(turn, *row, "WORKER_REMOVED", "its worker was removed by force");
    }
    // Nobody is left who could confirm its end.
    engine_.BunkerGone(turn, *s.bunkers.Find(id));
  }
  // Rows that told it to end what it should not have.
  std::vector<std::string> rest;
  const auto& rows = s.desired.rows();
  for (auto it = rows.lower_bound(worker_id + "/bunkers/");
       it != rows.end() && it->first.rfind(worker_id + "/bunkers/", 0) == 0; ++it) {
    rest.push_back(it->first);
  }
  for (const std::string& key : rest) s.desired.Erase(turn, key);
}

void WorkerAdmin::DropFromGroups(Turn& turn, const std::string& worker_id) {
  Engine::State& s = *engine_.state_;
  const std::set<std::string> ids = s.groups_of_worker.Of(worker_id);
  for (const std::string& id : ids) {
    Group group = *s.groups.Find(id);
    group.worker_ids.erase(worker_id);
    group.updated_at = turn.now();
    s.groups.Put(turn, std::move(group));
  }
}

void WorkerAdmin::DropCache(Turn& turn, const std::string& worker_id) {
  Engine::State& s = *engine_.state_;
  const std::set<std::string> images = s.images_of_worker.Of(worker_id);
  for (const std::string& image_id : images) {
    const std::string key = CacheEntry::Key(image_id, worker_id);
    s.desired.Erase(turn, worker_id + "/" + ImageRowName(image_id));
    s.entries.Erase(turn, key);
  }
  // It may have been the one that was to resolve a ref.
  for (const std::string& image_id : images) engine_.ReconcileImage(turn, image_id);
}

}  // namespace bunker::controller
