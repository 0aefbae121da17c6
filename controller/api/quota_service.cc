#include <algorithm>
#include <set>
#include <utility>

#include "bunker/v1/quota.pb.h"
#include "common/base/status_macros.h"
#include "controller/api/auth.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "controller/api/services.h"
#include "controller/api/validate.h"
#include "controller/engine/quotas.h"

namespace bunker::controller {
namespace {

constexpr char kProfiles[] = "quota_profiles";
constexpr char kAssignments[] = "quota_assignments";

// One cap: its name in the API and where the model has it.
struct CapField {
  const char* name;
  std::optional<uint64_t> QuotaCaps::*cap;
};
constexpr CapField kCapFields[] = {{"max_concurrent_bunkers", &QuotaCaps::max_concurrent_bunkers},
                                   {"max_persistent_bunkers", &QuotaCaps::max_persistent_bunkers},
                                   {"max_cpu_millicores", &QuotaCaps::max_cpu_millicores},
                                   {"max_memory_mb", &QuotaCaps::max_memory_mb},
                                   {"max_disk_mb", &QuotaCaps::max_disk_mb},
                                   {"max_gpu_count", &QuotaCaps::max_gpu_count},
                                   {"per_bunker_max_cpu", &QuotaCaps::per_bunker_max_cpu},
                                   {"per_bunker_max_memory", &QuotaCaps::per_bunker_max_memory},
                                   {"per_bunker_max_disk", &QuotaCaps::per_bunker_max_disk},
                                   {"per_bunker_max_gpu", &QuotaCaps::per_bunker_max_gpu}};

constexpr uint64_t kMaxCap = uint64_t{1} << 53;  // what a JSON number holds exactly

using google::protobuf::Message;

// Takes over the caps of `request` that are set, or that `given` names.
absl::Status ReadCaps(const Message& request, const std::set<std::string>& given, QuotaCaps& caps) {
  Validator v;
  for (const CapField& field : kCapFields) {
    const auto* descriptor = request.GetDescriptor()->FindFieldByName(field.name);
    if (request.GetReflection()->HasField(request, descriptor)) {
      const uint64_t cap = request.GetReflection()->GetUInt64(request, descriptor);
      v.Range(field.name, cap, 0, kMaxCap);
      caps.*field.cap = cap;
    } else if (given.count(field.name) > 0) {
      (caps.*field.cap).reset();
    }
  }
  return v.status();
}

v1::QuotaProfile Row(const QuotaProfile& profile) {
  v1::QuotaProfile row;
  row.set_id(profile.id);
  row.set_name(profile.name);
  row.set_description(profile.description);
  row.set_scope(ToProto<v1::Scope>(profile.ownership.scope));
  if (!profile.ownership.tenant_id.empty()) row.set_tenant_id(profile.ownership.tenant_id);
  if (!profile.ownership.partner_id.empty()) row.set_partner_id(profile.ownership.partner_id);
  for (const CapField& field : kCapFields) {
    const std::optional<uint64_t>& cap = profile.caps.*field.cap;
    if (cap)
      row.GetReflection()->SetUInt64(&row, row.GetDescriptor()->FindFieldByName(field.name), *cap);
  }
  SetTime(profile.created_at, row.mutable_created_at());
  SetTime(profile.updated_at, row.mutable_updated_at());
  return row;
}

v1::QuotaAssignment Row(const QuotaAssignment& assignment) {
  v1::QuotaAssignment row;
  row.set_id(assignment.id);
  row.set_profile_id(assignment.profile_id);
  row.set_target_kind(ToProto<v1::QuotaTargetKind>(assignment.target_kind));
  row.set_target_id(assignment.target_id);
  row.set_mode(ToProto<v1::QuotaMode>(assignment.mode));
  row.set_scope(ToProto<v1::Scope>(assignment.ownership.scope));
  row.set_tenant_id(assignment.tenant_id);
  SetTime(assignment.created_at, row.mutable_created_at());
  return row;
}

v1::QuotaUsageRow Row(const QuotaRow& found) {
  v1::QuotaUsageRow row;
  row.set_profile_id(found.profile->id);
  row.set_profile_name(found.profile->name);
  if (found.assignment != nullptr) row.set_assignment_id(found.assignment->id);
  row.set_mode(found.assignment == nullptr ? v1::QUOTA_MODE_INDIVIDUAL
                                           : ToProto<v1::QuotaMode>(found.assignment->mode));
  row.mutable_bucket()->set_kind(ToProto<v1::QuotaTargetKind>(found.bucket_kind));
  row.mutable_bucket()->set_id(found.bucket_id);
  row.mutable_bucket()->set_nested(found.is_nested);
  const QuotaCaps& caps = found.profile->caps;
  const QuotaUsage& usage = found.usage;
  const auto put = [&row](uint64_t used, const std::optional<uint64_t>& cap,
                          void (v1::QuotaAmounts::*set)(uint64_t)) {
    (row.mutable_usage()->*set)(used);
    if (!cap) return;
    (row.mutable_cap()->*set)(*cap);
    (row.mutable_headroom()->*set)(*cap > used ? *cap - used : 0);
  };
  row.mutable_cap();
  row.mutable_headroom();
  put(usage.bunkers, caps.max_concurrent_bunkers, &v1::QuotaAmounts::set_bunkers);
  put(usage.persistent, caps.max_persistent_bunkers, &v1::QuotaAmounts::set_persistent_bunkers);
  put(usage.cpu_millicores, caps.max_cpu_millicores, &v1::QuotaAmounts::set_cpu_millicores);
  put(usage.memory_mb, caps.max_memory_mb, &v1::QuotaAmounts::set_memory_mb);
  put(usage.disk_mb, caps.max_disk_mb, &v1::QuotaAmounts::set_disk_mb);
  put(usage.gpus, caps.max_gpu_count, &v1::QuotaAmounts::set_gpu_count);
  return row;
}

absl::StatusOr<v1::QuotaProfile> CreateProfile(CallContext& context,
                                               const v1::CreateQuotaProfileRequest& request) {
  Validator v;
  v.Name("name", request.name());
  v.Text("description", request.description(), 512);
  RETURN_IF_ERROR(v.status());
  QuotaProfileSpec spec;
  spec.name = request.name();
  spec.description = request.description();
  spec.scope = ToModel<Scope>(request.scope()).value_or(Scope::kTenant);
  RETURN_IF_ERROR(ReadCaps(request, {}, spec.caps));
  if (spec.scope == Scope::kTenant && context.caller.tenant_id.empty())
    return ValidationError("scope", "the operator has no tenant; use platform, or a tenant's key");
  RETURN_IF_ERROR(CheckScope(context, spec.scope, "quota profile"));
  ASSIGN_OR_RETURN(const RowPtr<QuotaProfile> profile,
                   context.engine.quotas().CreateProfile(context.turn, context.caller, spec));
  return Row(*profile);
}

// The profile that the caller may change.
absl::StatusOr<RowPtr<QuotaProfile>> FindToChange(CallContext& context, const std::string& ref) {
  ASSIGN_OR_RETURN(RowPtr<QuotaProfile> profile,
                   context.engine.quotas().FindProfile(context.caller, ref));
  RETURN_IF_ERROR(CheckMayChange(context, profile->ownership, "quota profile"));
  return profile;
}

absl::StatusOr<v1::QuotaProfile> UpdateProfile(CallContext& context,
                                               const v1::UpdateQuotaProfileRequest& request) {
  ASSIGN_OR_RETURN(const RowPtr<QuotaProfile> found, FindToChange(context, request.profile()));
  const auto& paths = request.update_mask().paths();
  QuotaProfileUpdate update;
  update.caps = found->caps;
  RETURN_IF_ERROR(ReadCaps(request, {paths.begin(), paths.end()}, update.caps));
  Validator v;
  if (request.has_name()) v.Name("name", request.name());
  v.Text("description", request.description(), 512);
  RETURN_IF_ERROR(v.status());
  if (request.has_name()) update.name = request.name();
  if (request.has_description()) update.description = request.description();
  ASSIGN_OR_RETURN(
      const RowPtr<QuotaProfile> profile,
      context.engine.quotas().UpdateProfile(context.turn, context.caller, found->id, update));
  return Row(*profile);
}

absl::StatusOr<v1::QuotaProfile> DeleteProfile(CallContext& context,
                                               const v1::DeleteQuotaProfileRequest& request) {
  ASSIGN_OR_RETURN(const RowPtr<QuotaProfile> found, FindToChange(context, request.profile()));
  ASSIGN_OR_RETURN(const RowPtr<QuotaProfile> profile,
                   context.engine.quotas().DeleteProfile(context.turn, context.caller, found->id));
  return Row(*profile);
}

absl::StatusOr<v1::ListQuotaProfilesResponse> ListProfiles(
    const Cursors& cursors, CallContext& context, const v1::ListQuotaProfilesRequest& request) {
  ASSIGN_OR_RETURN(const PageSpec page,
                   cursors.PageOf(context.caller.tenant_id, kProfiles, request));
  const Page<QuotaProfile> found = context.engine.quotas().ListProfiles(context.caller, page);
  v1::ListQuotaProfilesResponse response;
  for (const RowPtr<QuotaProfile>& one : found.rows) *response.add_profiles() = Row(*one);
  response.set_has_more(found.has_more);
  if (found.has_more)
    response.set_next_cursor(
        cursors.Make(context.caller.tenant_id, kProfiles, found.rows.back()->id));
  return response;
}

absl::StatusOr<v1::GetQuotaUsageResponse> GetUsage(CallContext& context,
                                                   const v1::GetQuotaUsageRequest& request) {
  std::string user_id = context.caller.user_id;
  if (request.has_user_id() && request.user_id() != user_id) {
    if (!HasPermission(context.caller, "admin:tenant"))
      return ApiError("AUTHZ_PERMISSION_DENIED",
                      "another user's usage needs the permission scaibunker:admin:tenant; leave "
                      "user_id out for your own");
    ASSIGN_OR_RETURN(user_id, context.engine.quotas().FindUser(context.caller, request.user_id()));
  }
  v1::GetQuotaUsageResponse response;
  for (const QuotaRow& row : context.engine.quotas().Applying(user_id))
    *response.add_rows() = Row(row);
  return response;
}

absl::StatusOr<v1::QuotaAssignment> Assign(CallContext& context,
                                           const v1::CreateQuotaAssignmentRequest& request) {
  Validator v;
  v.Required("profile_id", request.profile_id());
  v.Required("target_id", request.target_id());
  const auto kind = ToModel<QuotaTarget>(request.target_kind());
  if (!kind) v.Refuse("target_kind", "is required; it takes user, group");
  RETURN_IF_ERROR(v.status());
  QuotaAssignmentSpec spec;
  spec.profile = request.profile_id();
  spec.target_kind = *kind;
  spec.target_id = request.target_id();
  spec.mode = ToModel<QuotaMode>(request.mode()).value_or(QuotaMode::kIndividual);
  ASSIGN_OR_RETURN(const RowPtr<QuotaAssignment> row,
                   context.engine.quotas().Assign(context.turn, context.caller, spec));
  return Row(*row);
}

absl::StatusOr<v1::ListQuotaAssignmentsResponse> ListAssignments(
    const Cursors& cursors, CallContext& context, const v1::ListQuotaAssignmentsRequest& request) {
  ASSIGN_OR_RETURN(const PageSpec page,
                   cursors.PageOf(context.caller.tenant_id, kAssignments, request));
  const Page<QuotaAssignment> found = context.engine.quotas().ListAssignments(context.caller, page);
  v1::ListQuotaAssignmentsResponse response;
  for (const RowPtr<QuotaAssignment>& one : found.rows) *response.add_assignments() = Row(*one);
  response.set_has_more(found.has_more);
  if (found.has_more)
    response.set_next_cursor(
        cursors.Make(context.caller.tenant_id, kAssignments, found.rows.back()->id));
  return response;
}

void RegisterProfiles(const Cursors* cursors, Dispatcher* dispatcher) {
  dispatcher->For("bunker.v1.QuotaProfiles.CreateQuotaProfile")
      .Register<v1::CreateQuotaProfileRequest, v1::QuotaProfile>(CreateProfile);
  dispatcher->For("bunker.v1.QuotaProfiles.ListQuotaProfiles")
      .Register<v1::ListQuotaProfilesRequest, v1::ListQuotaProfilesResponse>(
          [cursors](CallContext& context, const v1::ListQuotaProfilesRequest& request) {
            return ListProfiles(*cursors, context, request);
          });
  dispatcher->For("bunker.v1.QuotaProfiles.GetQuotaProfile")
      .Register<v1::GetQuotaProfileRequest, v1::QuotaProfile>(
          [](CallContext& context,
             const v1::GetQuotaProfileRequest& request) -> absl::StatusOr<v1::QuotaProfile> {
            ASSIGN_OR_RETURN(
                const RowPtr<QuotaProfile> profile,
                context.engine.quotas().FindProfile(context.caller, request.profile()));
            return Row(*profile);
          });
  dispatcher->For("bunker.v1.QuotaProfiles.UpdateQuotaProfile")
      .Register<v1::UpdateQuotaProfileRequest, v1::QuotaProfile>(UpdateProfile);
  dispatcher->For("bunker.v1.QuotaProfiles.DeleteQuotaProfile")
      .Register<v1::DeleteQuotaProfileRequest, v1::QuotaProfile>(DeleteProfile);
  dispatcher->For("bunker.v1.QuotaProfiles.GetQuotaUsage")
      .Register<v1::GetQuotaUsageRequest, v1::GetQuotaUsageResponse>(GetUsage);
}

}  // namespace

void RegisterQuotaService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  const Cursors* cursors = deps.cursors;
  RegisterProfiles(cursors, dispatcher);
  dispatcher->For("bunker.v1.QuotaAssignments.CreateQuotaAssignment")
      .Register<v1::CreateQuotaAssignmentRequest, v1::QuotaAssignment>(Assign);
  dispatcher->For("bunker.v1.QuotaAssignments.ListQuotaAssignments")
      .Register<v1::ListQuotaAssignmentsRequest, v1::ListQuotaAssignmentsResponse>(
          [cursors](CallContext& context, const v1::ListQuotaAssignmentsRequest& request) {
            return ListAssignments(*cursors, context, request);
          });
  dispatcher->For("bunker.v1.QuotaAssignments.GetQuotaAssignment")
      .Register<v1::GetQuotaAssignmentRequest, v1::QuotaAssignment>(
          [](CallContext& context,
             const v1::GetQuotaAssignmentRequest& request) -> absl::StatusOr<v1::QuotaAssignment> {
            ASSIGN_OR_RETURN(
                const RowPtr<QuotaAssignment> row,
                context.engine.quotas().FindAssignment(context.caller, request.assignment()));
            return Row(*row);
          });
  dispatcher->For("bunker.v1.QuotaAssignments.DeleteQuotaAssignment")
      .Register<v1::DeleteQuotaAssignmentRequest, v1::QuotaAssignment>(
          [](CallContext& context, const v1::DeleteQuotaAssignmentRequest& request)
              -> absl::StatusOr<v1::QuotaAssignment> {
            ASSIGN_OR_RETURN(const RowPtr<QuotaAssignment> row,
                             context.engine.quotas().Unassign(context.turn, context.caller,
                                                              request.assignment()));
            return Row(*row);
          });
}

}  // namespace bunker::controller
