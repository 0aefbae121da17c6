#include <string>
#include <vector>

#include "bunker/v1/group.pb.h"
#include "common/base/status_macros.h"
#include "controller/api/auth.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "controller/api/services.h"
#include "controller/api/validate.h"

namespace bunker::controller {
namespace {

constexpr char kGroups[] = "groups";
constexpr int kMaxPlanRows = 10'000;

// Without the workers that the caller may not see.
v1::AvailabilityGroup Row(CallContext& context, const Group& group) {
  v1::AvailabilityGroup row;
  ToMessage(group, &row);
  row.clear_worker_ids();
  for (const std::string& id : group.worker_ids) {
    if (context.engine.FindWorker(context.caller, id).ok()) row.add_worker_ids(id);
  }
  return row;
}

absl::StatusOr<v1::AvailabilityGroup> CreateGroup(
    CallContext& context, const v1::CreateAvailabilityGroupRequest& request) {
  RETURN_IF_ERROR(ValidateCreateGroup(request));
  CreateGroupSpec spec;
  spec.name = request.name();
  spec.description = request.description();
  spec.scope = ToModel<Scope>(request.scope()).value_or(Scope::kTenant);
  spec.auto_images = request.auto_images();
  if (spec.scope == Scope::kTenant && context.caller.tenant_id.empty())
    return ValidationError("scope", "the operator has no tenant; use platform, or a tenant's key");
  RETURN_IF_ERROR(CheckScope(context, spec.scope, "group"));
  ASSIGN_OR_RETURN(const RowPtr<Group> group,
                   context.engine.CreateGroup(context.turn, context.caller, spec));
  return Row(context, *group);
}

absl::StatusOr<v1::ListAvailabilityGroupsResponse> ListGroups(
    const Cursors& cursors, CallContext& context,
    const v1::ListAvailabilityGroupsRequest& request) {
  ASSIGN_OR_RETURN(const PageSpec page,
                   cursors.PageOf(context.caller.tenant_id, kGroups, request));
  const Page<Group> found = context.engine.ListGroups(context.caller, page);
  v1::ListAvailabilityGroupsResponse response;
  for (const RowPtr<Group>& group : found.rows) *response.add_groups() = Row(context, *group);
  response.set_has_more(found.has_more);
  if (found.has_more)
    response.set_next_cursor(
        cursors.Make(context.caller.tenant_id, kGroups, found.rows.back()->id));
  return response;
}

// The group that the caller may change.
absl::StatusOr<RowPtr<Group>> FindToChange(CallContext& context, const std::string& ref) {
  ASSIGN_OR_RETURN(RowPtr<Group> group, context.engine.FindGroup(context.caller, ref));
  RETURN_IF_ERROR(CheckMayChange(context, group->ownership, "group"));
  return group;
}

using Change = absl::StatusOr<RowPtr<Group>> (Engine::*)(Turn&, const Caller&, const std::string&,
                                                         const std::string&);

absl::StatusOr<v1::AvailabilityGroup> ChangeMember(CallContext& context, Change change,
                                                   const std::string& group_ref,
                                                   const std::string& member,
                                                   std::string_view field) {
  if (member.empty()) return ValidationError(field, "is required: an id or a name");
  ASSIGN_OR_RETURN(const RowPtr<Group> group, FindToChange(context, group_ref));
  ASSIGN_OR_RETURN(const RowPtr<Group> after,
                   (context.engine.*change)(context.turn, context.caller, group->id, member));
  return Row(context, *after);
}

absl::StatusOr<v1::AvailabilityGroup> PatchGroup(CallContext& context,
                                                 const v1::PatchAvailabilityGroupRequest& request) {
  RETURN_IF_ERROR(ValidatePatchGroup(request));
  ASSIGN_OR_RETURN(const RowPtr<Group> group, FindToChange(context, request.group()));
  PatchGroupSpec spec;
  if (request.has_name()) spec.name = request.name();
  if (request.has_description()) spec.description = request.description();
  if (request.has_auto_images()) spec.auto_images = request.auto_images();
  ASSIGN_OR_RETURN(const RowPtr<Group> after,
                   context.engine.PatchGroup(context.turn, context.caller, group->id, spec));
  return Row(context, *after);
}

std::vector<std::string> Refs(const google::protobuf::RepeatedPtrField<std::string>& from) {
  return {from.begin(), from.end()};
}

absl::StatusOr<v1::PlanAvailabilityGroupResponse> PlanGroup(
    CallContext& context, const v1::PlanAvailabilityGroupRequest& request) {
  RETURN_IF_ERROR(ValidatePlanGroup(request));
  ASSIGN_OR_RETURN(const RowPtr<Group> group,
                   context.engine.FindGroup(context.caller, request.group()));
  const GroupChange change{Refs(request.add_images()), Refs(request.remove_images()),
                           Refs(request.add_workers()), Refs(request.remove_workers())};
  ASSIGN_OR_RETURN(const GroupPlan plan,
                   context.engine.PlanGroup(context.turn, context.caller, group->id, change));
  v1::PlanAvailabilityGroupResponse response;
  for (const PlanRow& from : plan.rows) {
    if (response.rows_size() == kMaxPlanRows) {
      response.set_has_more(true);
      break;
    }
    v1::PlanRow* row = response.add_rows();
    row->set_worker(from.worker->id);
    row->set_worker_name(from.worker->name);
    row->set_image(from.image->id);
    row->set_image_name(from.image->name);
    // What is left out stays as it is.
    const bool skipped = from.action == PlanAction::kSkip;
    row->set_action(skipped ? v1::PLAN_ACTION_KEEP : ToProto<v1::PlanAction>(from.action));
    row->set_bytes(skipped ? 0 : from.bytes);
    row->set_reason(skipped ? "left out: " + from.reason : from.reason);
  }
  return response;
}

absl::StatusOr<v1::AvailabilityGroup> DeleteGroup(
    CallContext& context, const v1::DeleteAvailabilityGroupRequest& request) {
  ASSIGN_OR_RETURN(const RowPtr<Group> group, FindToChange(context, request.group()));
  v1::AvailabilityGroup row = Row(context, *group);
  RETURN_IF_ERROR(context.engine.DeleteGroup(context.turn, context.caller, group->id));
  return row;
}

}  // namespace

void RegisterGroupService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  const Cursors* cursors = deps.cursors;
  const std::string service = "bunker.v1.AvailabilityGroups.";
  using Row = v1::AvailabilityGroup;
  dispatcher->For(service + "CreateAvailabilityGroup")
      .Register<v1::CreateAvailabilityGroupRequest, Row>(CreateGroup);
  dispatcher->For(service + "ListAvailabilityGroups")
      .Register<v1::ListAvailabilityGroupsRequest, v1::ListAvailabilityGroupsResponse>(
          [cursors](CallContext& context, const v1::ListAvailabilityGroupsRequest& request) {
            return ListGroups(*cursors, context, request);
          });
  dispatcher->For(service + "GetAvailabilityGroup")
      .Register<v1::GetAvailabilityGroupRequest, Row>(
          [](CallContext& context,
             const v1::GetAvailabilityGroupRequest& request) -> absl::StatusOr<Row> {
            ASSIGN_OR_RETURN(const RowPtr<Group> group,
                             context.engine.FindGroup(context.caller, request.group()));
            return controller::Row(context, *group);
          });
  dispatcher->For(service + "PatchAvailabilityGroup")
      .Register<v1::PatchAvailabilityGroupRequest, Row>(PatchGroup);
  dispatcher->For(service + "PlanAvailabilityGroup")
      .Register<v1::PlanAvailabilityGroupRequest, v1::PlanAvailabilityGroupResponse>(PlanGroup);
  dispatcher->For(service + "DeleteAvailabilityGroup")
      .Register<v1::DeleteAvailabilityGroupRequest, Row>(DeleteGroup);
  dispatcher->For(service + "AttachImage")
      .Register<v1::AttachRequest, Row>([](CallContext& context, const v1::AttachRequest& r) {
        return ChangeMember(context, &Engine::AttachImage, r.group(), r.ref(), "ref");
      });
  dispatcher->For(service + "DetachImage")
      .Register<v1::DetachImageRequest, Row>(
          [](CallContext& context, const v1::DetachImageRequest& r) {
            return ChangeMember(context, &Engine::DetachImage, r.group(), r.image(), "image");
          });
  dispatcher->For(service + "AttachWorker")
      .Register<v1::AttachRequest, Row>([](CallContext& context, const v1::AttachRequest& r) {
        return ChangeMember(context, &Engine::AttachWorker, r.group(), r.ref(), "ref");
      });
  dispatcher->For(service + "DetachWorker")
      .Register<v1::DetachWorkerRequest, Row>(
          [](CallContext& context, const v1::DetachWorkerRequest& r) {
            return ChangeMember(context, &Engine::DetachWorker, r.group(), r.worker(), "worker");
          });
}

}  // namespace bunker::controller
