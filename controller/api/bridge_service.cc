// Bridges: registering those that workers report, for the tenants that may attach to them.
#include <string>
#include <utility>

#include "bunker/v1/bridge.pb.h"
#include "common/base/status_macros.h"
#include "controller/api/auth.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "controller/api/interface_rules.h"
#include "controller/api/services.h"
#include "controller/engine/bridges.h"

namespace bunker::controller {
namespace {

constexpr char kList[] = "bridges";

v1::Bridge Row(CallContext& context, const Bridge& bridge) {
  const Caller& caller = context.caller;
  const bool owns = context.engine.bridges().MayChange(caller, bridge);
  v1::Bridge row;
  row.set_id(bridge.id);
  row.set_name(bridge.name);
  row.set_scope(ToProto<v1::Scope>(bridge.ownership.scope));
  if (!bridge.ownership.tenant_id.empty()) row.set_tenant_id(bridge.ownership.tenant_id);
  for (const std::string& id : bridge.tenant_ids) {
    if (owns || id == caller.tenant_id) row.add_tenant_ids(id);
  }
  for (const std::string& id : bridge.worker_ids) {
    if (owns || context.engine.FindWorker(caller, id).ok()) row.add_workers(id);
  }
  SetTime(bridge.created_at, row.mutable_created_at());
  return row;
}

absl::StatusOr<v1::Bridge> Create(CallContext& context, const v1::CreateBridgeRequest& request) {
  if (!IsDeviceName(request.name()))
    return ValidationError("name", "takes the name of a network device: 1 to 15 letters, digits, "
                                   "dots, dashes or underscores");
  CreateBridgeSpec spec;
  spec.name = request.name();
  spec.scope = ToModel<Scope>(request.scope()).value_or(Scope::kTenant);
  spec.tenant_ids.insert(request.tenant_ids().begin(), request.tenant_ids().end());
  spec.workers.assign(request.workers().begin(), request.workers().end());
  if (spec.scope == Scope::kTenant && context.caller.tenant_id.empty())
    return ValidationError("scope", "the operator has no tenant; use platform, or a tenant's key");
  RETURN_IF_ERROR(CheckScope(context, spec.scope, "bridge"));
  ASSIGN_OR_RETURN(const RowPtr<Bridge> row,
                   context.engine.bridges().Create(context.turn, context.caller, spec));
  return Row(context, *row);
}

absl::StatusOr<v1::ListBridgesResponse> List(const Cursors& cursors, CallContext& context,
                                             const v1::ListBridgesRequest& request) {
  ASSIGN_OR_RETURN(const PageSpec page, cursors.PageOf(context.caller.tenant_id, kList, request));
  const Page<Bridge> found = context.engine.bridges().List(context.caller, page);
  v1::ListBridgesResponse response;
  for (const auto& row : found.rows) *response.add_bridges() = Row(context, *row);
  response.set_has_more(found.has_more);
  if (found.has_more)
    response.set_next_cursor(cursors.Make(context.caller.tenant_id, kList, found.rows.back()->id));
  return response;
}

absl::StatusOr<v1::Bridge> Get(CallContext& context, const v1::GetBridgeRequest& request) {
  ASSIGN_OR_RETURN(const RowPtr<Bridge> found,
                   context.engine.bridges().Find(context.caller, request.bridge()));
  return Row(context, *found);
}

absl::StatusOr<v1::Bridge> Delete(CallContext& context, const v1::DeleteBridgeRequest& request) {
  Bridges& bridges = context.engine.bridges();
  ASSIGN_OR_RETURN(const RowPtr<Bridge> found, bridges.Find(context.caller, request.bridge()));
  RETURN_IF_ERROR(CheckMayChange(context, found->ownership, "bridge"));
  v1::Bridge row = Row(context, *found);
  RETURN_IF_ERROR(bridges.Delete(context.turn, context.caller, found->id));
  return row;
}

}  // namespace

void RegisterBridgeService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  const std::string service = "bunker.v1.Bridges.";
  const Cursors* cursors = deps.cursors;
  dispatcher->For(service + "CreateBridge")
      .Register<v1::CreateBridgeRequest, v1::Bridge>(Create);
  dispatcher->For(service + "ListBridges")
      .Register<v1::ListBridgesRequest, v1::ListBridgesResponse>(
          [cursors](CallContext& context, const v1::ListBridgesRequest& request) {
            return List(*cursors, context, request);
          });
  dispatcher->For(service + "GetBridge").Register<v1::GetBridgeRequest, v1::Bridge>(Get);
  dispatcher->For(service + "DeleteBridge")
      .Register<v1::DeleteBridgeRequest, v1::Bridge>(Delete);
}

}  // namespace bunker::controller
