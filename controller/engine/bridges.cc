#include "controller/engine/bridges.h"

#include <utility>

#include "common/base/reason.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

std::string Quoted(const std::string& name) {
  return "\"" + name + "\"";
}

// As far as the caller administers workers.
Ownership AuthorityOf(const Caller& caller) {
  for (const Ownership& level : {Ownership{Scope::kPlatform, "", ""},
                                 Ownership{Scope::kPartner, "", caller.partner_id}}) {
    if (controller::MayChange(caller, level)) return level;
  }
  return caller.ownership();
}

std::string FieldOf(size_t interface, const char* name) {
  return "interfaces[" + std::to_string(interface) + "]." + name;
}

}  // namespace

absl::Status Bridges::FillTenants(const Caller& caller, const CreateBridgeSpec& spec,
                                  Bridge& row) const {
  if (spec.scope == Scope::kTenant) {
    for (const std::string& id : spec.tenant_ids) {
      if (id != caller.tenant_id)
        return Invalid("tenant_ids: at scope tenant it is the caller's own alone: leave it out, or "
                       "use scope partner or platform");
    }
    row.tenant_ids = {caller.tenant_id};
    return absl::OkStatus();
  }
  if (spec.tenant_ids.empty()) {
    return Invalid("tenant_ids: name the tenants that may attach; at scope " +
                   std::string(NameOf(spec.scope)) + " a bridge is nobody's by default");
  }
  for (const std::string& id : spec.tenant_ids) {
    const RowPtr<Tenant> tenant = state_.tenants.Find(id);
    const bool within = tenant != nullptr && (spec.scope == Scope::kPlatform ||
                                              tenant->partner_id == row.ownership.partner_id);
    if (!within) return Invalid("tenant_ids: there is no tenant " + Quoted(id) + " at this scope");
  }
  row.tenant_ids = spec.tenant_ids;
  return absl::OkStatus();
}

absl::Status Bridges::FillWorkers(const Caller& caller, const CreateBridgeSpec& spec,
                                  Bridge& row) const {
  for (const std::string& ref : spec.workers) {
    ASSIGN_OR_RETURN(const WorkerView view, engine_.FindWorker(caller, ref));
    if (!Covers(row.reach, view.worker->ownership)) {
      return Denied("the worker " + view.worker->name + " belongs to scope " +
                        std::string(NameOf(view.worker->ownership.scope)),
                    "only its owners may open its bridges");
    }
    if (view.worker->facts.bridges.count(row.name) == 0) return NotFound("bridge", row.name);
    row.worker_ids.insert(view.worker->id);
  }
  for (const auto& [id, worker] : state_.workers.rows()) {
    if (StandsFor(row, *worker)) return absl::OkStatus();
  }
  return NotFound("bridge", row.name);
}

absl::StatusOr<RowPtr<Bridge>> Bridges::Create(Turn& turn, const Caller& caller,
                                               const CreateBridgeSpec& spec) {
  Bridge row;
  ASSIGN_OR_RETURN(row.ownership, OwnershipFor(caller, spec.scope));
  row.name = spec.name;
  row.owner = caller.user_id;
  row.reach = AuthorityOf(caller);
  RETURN_IF_ERROR(FillTenants(caller, spec, row));
  RETURN_IF_ERROR(FillWorkers(caller, spec, row));
  const std::string owner = OwnerKey(row.ownership);
  if (state_.bridge_by_name.count(owner + "/" + spec.name) > 0) {
    return ReasonError(absl::StatusCode::kAlreadyExists, "SLUG_CONFLICT",
                       "the bridge " + Quoted(spec.name) + " is registered at scope " +
                           std::string(NameOf(spec.scope)) +
                           ": delete that registration before making another");
  }
  if (state_.bridges_of_owner.Of(owner).size() >= state_.options.max_bridges_per_tenant) {
    return ReasonError(absl::StatusCode::kResourceExhausted, "RESOURCE_IN_USE",
                       "there are " + std::to_string(state_.options.max_bridges_per_tenant) +
                           " bridges at this scope, the most allowed: delete some");
  }
  row.id = state_.MakeId("br_", turn.now());
  row.created_at = turn.now();
  return state_.bridges.Put(turn, std::move(row));
}

bool Bridges::MayChange(const Caller& caller, const Bridge& bridge) const {
  return controller::MayChange(caller, bridge.ownership);
}

// A scope around the caller is not enough: a segment of another tenant's is nobody else's business.
bool Bridges::MaySee(const Caller& caller, const Bridge& bridge) const {
  return MayChange(caller, bridge) || bridge.tenant_ids.count(caller.tenant_id) > 0;
}

bool Bridges::StandsFor(const Bridge& bridge, const Worker& worker) const {
  return worker.facts.bridges.count(bridge.name) > 0 && Covers(bridge.reach, worker.ownership) &&
         (bridge.worker_ids.empty() || bridge.worker_ids.count(worker.id) > 0);
}

absl::StatusOr<RowPtr<Bridge>> Bridges::Find(const Caller& caller, const std::string& id) const {
  RowPtr<Bridge> row = state_.bridges.Find(id);
  if (row == nullptr || !MaySee(caller, *row)) return NotFound("bridge", id);
  return row;
}

Page<Bridge> Bridges::List(const Caller& caller, const PageSpec& page) const {
  const auto& rows = state_.bridges.rows();
  Page<Bridge> result;
  auto it = page.after_id.empty() ? rows.end() : rows.lower_bound(page.after_id);
  while (it != rows.begin()) {
    --it;
    if (!MaySee(caller, *it->second)) continue;
    if (result.rows.size() == page.limit) {
      result.has_more = true;
      break;
    }
    result.rows.push_back(it->second);
  }
  return result;
}

absl::Status Bridges::Delete(Turn& turn, const Caller& caller, const std::string& id) {
  ASSIGN_OR_RETURN(const RowPtr<Bridge> found, Find(caller, id));
  if (!MayChange(caller, *found)) {
    return Denied("the bridge " + Quoted(found->name) + " belongs to scope " +
                      std::string(NameOf(found->ownership.scope)),
                  "only its owners may delete it");
  }
  const size_t attached = state_.bunkers_of_bridge.Of(id).size();
  if (attached > 0) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, "RESOURCE_IN_USE",
                       std::to_string(attached) + " live bunker(s) are attached to the bridge " +
                           Quoted(found->name) + ": delete them first");
  }
  state_.bridges.Erase(turn, id);
  return absl::OkStatus();
}

absl::Status Bridges::Resolve(const Caller& caller, CreateBunkerSpec& spec) const {
  for (size_t i = 0; i < spec.interfaces.size(); ++i) {
    BunkerInterface& wanted = spec.interfaces[i];
    wanted.bridge_id.clear();
    for (const std::string& owner :
         {"tenant:" + caller.tenant_id, "partner:" + caller.partner_id, std::string("platform")}) {
      const auto it = state_.bridge_by_name.find(owner + "/" + wanted.bridge_name);
      if (it == state_.bridge_by_name.end() || !wanted.bridge_id.empty()) continue;
      if (state_.bridges.Find(it->second)->tenant_ids.count(caller.tenant_id) > 0)
        wanted.bridge_id = it->second;
    }
    if (wanted.bridge_id.empty()) return NotFound("bridge", wanted.bridge_name);
    const bool fixed = !wanted.mac.empty() || !wanted.ipv4.empty();
    if (fixed && spec.replicas.value_or(0) > 0) {
      return Invalid(FieldOf(i, wanted.mac.empty() ? "ipv4" : "mac") +
                     ": copies can't share it: create the bunkers one by one, or leave it out");
    }
    for (const auto& [field, key] :
         {std::pair{"mac", wanted.MacKey()}, std::pair{"ipv4", wanted.AddressKey()}}) {
      if (key.empty() || state_.bunker_of_link_name.count(key) == 0) continue;
      return Invalid(FieldOf(i, field) + ": a live bunker on the bridge " +
                     Quoted(wanted.bridge_name) +
                     " has it already: choose another, or delete that one first");
    }
  }
  return absl::OkStatus();
}

std::set<std::string> Bridges::WorkersFor(const std::vector<BunkerInterface>& interfaces) const {
  std::set<std::string> fit;
  for (const auto& [id, worker] : state_.workers.rows()) {
    bool all = true;
    for (const BunkerInterface& interface : interfaces) {
      const RowPtr<Bridge> bridge = state_.bridges.Find(interface.bridge_id);
      all = all && bridge != nullptr && StandsFor(*bridge, *worker);
    }
    if (all) fit.insert(id);
  }
  return fit;
}

void Bridges::FillMacs(Bunker& bunker) const {
  for (size_t i = 0; i < bunker.interfaces.size(); ++i) {
    BunkerInterface& interface = bunker.interfaces[i];
    if (!interface.mac.empty()) continue;
    uint64_t salt = 0;
    do {
      const std::string hash = Sha256Hex("mac " + bunker.id + " " + std::to_string(i) + " " +
                                         std::to_string(salt++));
      interface.mac = "02";  // unicast, and locally administered
      for (size_t at = 0; at < 10; at += 2) interface.mac += ":" + hash.substr(at, 2);
    } while (state_.bunker_of_link_name.count(interface.MacKey()) > 0);
  }
}

}  // namespace bunker::controller
