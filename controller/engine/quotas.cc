#include "controller/engine/quotas.h"

#include <set>
#include <utility>

#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

constexpr size_t kMaxProfilesPerOwner = 1000;

std::string TargetKey(QuotaTarget kind, const std::string& id) {
  return std::string(NameOf(kind)) + ":" + id;
}

absl::Status Exceeded(const QuotaRow& row, const QuotaBreach& breach, uint64_t count) {
  const std::string name(breach.cap_name);
  std::string text = "quota profile " + row.profile->name + ": " + name + " is " +
                     std::to_string(breach.cap) + ", ";
  if (name.rfind("per_bunker_", 0) == 0) {
    text += std::to_string(breach.asked) + " is asked for: ask for less";
  } else {
    text += std::to_string(breach.usage) + " in use, " + std::to_string(breach.asked) +
            " more asked for" + (count > 1 ? " by " + std::to_string(count) + " bunkers" : "") +
            ": end other bunkers, ask for less";
  }
  return ReasonError(absl::StatusCode::kResourceExhausted, "BUNKER_QUOTA_EXCEEDED",
                     text + ", or ask an administrator for a higher cap");
}

}  // namespace

// ---- profiles ---------------------------------------------------------------------------------

absl::Status Quotas::CheckNameFree(const Ownership& owner, const std::string& name) const {
  if (engine_.state_->quota_profile_by_name.count(OwnerKey(owner) + "/" + name) == 0) {
    return absl::OkStatus();
  }
  return ReasonError(absl::StatusCode::kAlreadyExists, "SLUG_CONFLICT",
                     "a quota profile named " + name + " exists at scope " +
                         std::string(NameOf(owner.scope)) + ": use it, or choose another name");
}

absl::StatusOr<RowPtr<QuotaProfile>> Quotas::CreateProfile(Turn& turn, const Caller& caller,
                                                           const QuotaProfileSpec& spec) {
  Engine::State& s = *engine_.state_;
  ASSIGN_OR_RETURN(const Ownership ownership, OwnershipFor(caller, spec.scope));
  if (spec.name.empty()) return Invalid("name: required");
  RETURN_IF_ERROR(CheckNameFree(ownership, spec.name));
  if (s.quota_profiles_of_owner.Of(OwnerKey(ownership)).size() >= kMaxProfilesPerOwner) {
    return ReasonError(absl::StatusCode::kResourceExhausted, "RESOURCE_IN_USE",
                       "there are " + std::to_string(kMaxProfilesPerOwner) +
                           " quota profiles at this scope, the most allowed: delete some");
  }
  QuotaProfile profile;
  profile.id = s.MakeId("qp_", turn.now());
  profile.name = spec.name;
  profile.description = spec.description;
  profile.ownership = ownership;
  profile.caps = spec.caps;
  profile.created_at = profile.updated_at = turn.now();
  return s.quota_profiles.Put(turn, std::move(profile));
}

absl::StatusOr<RowPtr<QuotaProfile>> Quotas::FindProfile(const Caller& caller,
                                                         const std::string& ref) const {
  const Engine::State& s = *engine_.state_;
  const auto visible = [&](const std::string& id) -> RowPtr<QuotaProfile> {
    RowPtr<QuotaProfile> row = s.quota_profiles.Find(id);
    return row != nullptr && engine_.MaySee(caller, row->ownership) ? row : nullptr;
  };
  if (RowPtr<QuotaProfile> row = visible(ref); row != nullptr) return row;
  for (const std::string& owner :
       {"tenant:" + caller.tenant_id, "partner:" + caller.partner_id, std::string("platform")}) {
    const auto it = s.quota_profile_by_name.find(owner + "/" + ref);
    if (it == s.quota_profile_by_name.end()) continue;
    if (RowPtr<QuotaProfile> row = visible(it->second); row != nullptr) return row;
  }
  return NotFound("quota profile", ref);
}

absl::StatusOr<RowPtr<QuotaProfile>> Quotas::FindOwnProfile(const Caller& caller,
                                                            const std::string& ref) const {
  ASSIGN_OR_RETURN(RowPtr<QuotaProfile> profile, FindProfile(caller, ref));
  if (MayChange(caller, profile->ownership)) return profile;
  return Denied(
      "the quota profile belongs to scope " + std::string(NameOf(profile->ownership.scope)),
      "only its owners may change it: make a profile of your own");
}

Page<QuotaProfile> Quotas::ListProfiles(const Caller& caller, const PageSpec& page) const {
  const auto& rows = engine_.state_->quota_profiles.rows();
  Page<QuotaProfile> result;
  auto it = page.after_id.empty() ? rows.end() : rows.lower_bound(page.after_id);
  while (it != rows.begin()) {
    --it;
    if (!engine_.MaySee(caller, it->second->ownership)) continue;
    if (result.rows.size() == page.limit) {
      result.has_more = true;
      break;
    }
    result.rows.push_back(it->second);
  }
  return result;
}

absl::StatusOr<RowPtr<QuotaProfile>> Quotas::UpdateProfile(Turn& turn, const Caller& caller,
                                                           const std::string& ref,
                                                           const QuotaProfileUpdate& update) {
  ASSIGN_OR_RETURN(const RowPtr<QuotaProfile> found, FindOwnProfile(caller, ref));
  QuotaProfile profile = *found;
  profile.name = update.name.value_or(found->name);
  profile.description = update.description.value_or(found->description);
  profile.caps = update.caps;
  if (profile.name != found->name) {
    RETURN_IF_ERROR(CheckNameFree(found->ownership, profile.name));
  } else if (profile.description == found->description && profile.caps == found->caps) {
    return found;
  }
  profile.updated_at = turn.now();
  return engine_.state_->quota_profiles.Put(turn, std::move(profile));
}

absl::StatusOr<RowPtr<QuotaProfile>> Quotas::DeleteProfile(Turn& turn, const Caller& caller,
                                                           const std::string& ref) {
  Engine::State& s = *engine_.state_;
  ASSIGN_OR_RETURN(RowPtr<QuotaProfile> profile, FindOwnProfile(caller, ref));
  if (const size_t used = s.assignments_of_profile.Of(profile->id).size(); used > 0) {
    return ReasonError(
        absl::StatusCode::kFailedPrecondition, "RESOURCE_IN_USE",
        "the quota profile has " + std::to_string(used) + " assignments: delete them first");
  }
  s.quota_profiles.Erase(turn, profile->id);
  return profile;
}

// ---- assignments ------------------------------------------------------------------------------

absl::StatusOr<std::string> Quotas::TenantOfTarget(const Caller& caller,
                                                   const QuotaAssignmentSpec& spec) const {
  const Engine::State& s = *engine_.state_;
  const std::string noun = spec.target_kind == QuotaTarget::kUser ? "user" : "user group";
  std::string tenant_id;
  if (spec.target_kind == QuotaTarget::kUser) {
    const RowPtr<User> user = s.users.Find(spec.target_id);
    if (user != nullptr) tenant_id = user->tenant_id;
  } else {
    tenant_id = s.TenantOfUserGroup(spec.target_id);
  }
  const RowPtr<Tenant> tenant = s.tenants.Find(tenant_id);
  if (tenant == nullptr || !MayChange(caller, {Scope::kTenant, tenant->id, tenant->partner_id})) {
    return NotFound(noun, spec.target_id);
  }
  return tenant->id;
}

absl::StatusOr<RowPtr<QuotaAssignment>> Quotas::Assign(Turn& turn, const Caller& caller,
                                                       const QuotaAssignmentSpec& spec) {
  Engine::State& s = *engine_.state_;
  ASSIGN_OR_RETURN(const RowPtr<QuotaProfile> profile, FindProfile(caller, spec.profile));
  if (spec.target_kind == QuotaTarget::kUser && spec.mode != QuotaMode::kIndividual) {
    return Invalid("mode: a user has a bucket of its own: use individual");
  }
  QuotaAssignment row;
  ASSIGN_OR_RETURN(row.tenant_id, TenantOfTarget(caller, spec));
  const RowPtr<Tenant> tenant = s.tenants.Find(row.tenant_id);
  const Ownership of_tenant = {Scope::kTenant, tenant->id, tenant->partner_id};
  if (!Reaches(of_tenant, profile->ownership)) {
    return Invalid(
        "profile_id: the profile belongs to another owner than the target's: use one "
        "of the target's tenant, of its partner or of the platform");
  }
  if (s.assignment_of_target.count(TargetKey(spec.target_kind, spec.target_id)) > 0) {
    return ReasonError(absl::StatusCode::kAlreadyExists, "RESOURCE_IN_USE",
                       "the target has an assignment, and there is one for each: delete that one "
                       "first");
  }
  row.id = s.MakeId("qa_", turn.now());
  row.profile_id = profile->id;
  row.target_kind = spec.target_kind;
  row.target_id = spec.target_id;
  row.mode = spec.mode;
  row.created_at = turn.now();
  // Whom a higher role has bound can't loose itself.
  row.ownership = of_tenant;
  if (caller.role == Role::kPartnerAdmin) row.ownership = {Scope::kPartner, "", caller.partner_id};
  if (caller.super_admin()) row.ownership = {Scope::kPlatform, "", ""};
  return s.quota_assignments.Put(turn, std::move(row));
}

bool Quotas::MaySeeAssignment(const Caller& caller, const QuotaAssignment& row) const {
  const RowPtr<Tenant> tenant = engine_.state_->tenants.Find(row.tenant_id);
  if (tenant == nullptr) return caller.super_admin();
  return MayChange(caller, {Scope::kTenant, tenant->id, tenant->partner_id});
}

absl::StatusOr<RowPtr<QuotaAssignment>> Quotas::FindAssignment(const Caller& caller,
                                                               const std::string& id) const {
  RowPtr<QuotaAssignment> row = engine_.state_->quota_assignments.Find(id);
  if (row == nullptr || !MaySeeAssignment(caller, *row)) return NotFound("quota assignment", id);
  return row;
}

Page<QuotaAssignment> Quotas::ListAssignments(const Caller& caller, const PageSpec& page) const {
  const auto& rows = engine_.state_->quota_assignments.rows();
  Page<QuotaAssignment> result;
  auto it = page.after_id.empty() ? rows.end() : rows.lower_bound(page.after_id);
  while (it != rows.begin()) {
    --it;
    if (!MaySeeAssignment(caller, *it->second)) continue;
    if (result.rows.size() == page.limit) {
      result.has_more = true;
      break;
    }
    result.rows.push_back(it->second);
  }
  return result;
}

absl::StatusOr<RowPtr<QuotaAssignment>> Quotas::Unassign(Turn& turn, const Caller& caller,
                                                         const std::string& id) {
  ASSIGN_OR_RETURN(RowPtr<QuotaAssignment> row, FindAssignment(caller, id));
  if (!MayChange(caller, row->ownership)) {
    return Denied("the assignment was made at scope " + std::string(NameOf(row->ownership.scope)),
                  "only those who made it may take it away: ask them");
  }
  engine_.state_->quota_assignments.Erase(turn, row->id);
  return row;
}

absl::StatusOr<std::string> Quotas::FindUser(const Caller& caller, const std::string& id) const {
  QuotaAssignmentSpec as_target;
  as_target.target_id = id;
  RETURN_IF_ERROR(TenantOfTarget(caller, as_target).status());
  return id;
}

// ---- what applies -----------------------------------------------------------------------------

void Quotas::AddRow(const std::string& user_id, QuotaTarget kind, const std::string& target,
                    bool is_direct, std::vector<QuotaRow>& rows) const {
  const Engine::State& s = *engine_.state_;
  const auto it = s.assignment_of_target.find(TargetKey(kind, target));
  if (it == s.assignment_of_target.end()) return;
  QuotaRow row;
  row.assignment = s.quota_assignments.Find(it->second);
  row.profile = s.quota_profiles.Find(row.assignment->profile_id);
  if (row.profile == nullptr) return;
  row.bucket_kind = kind;
  row.bucket_id = target;
  if (kind == QuotaTarget::kUser || row.assignment->mode == QuotaMode::kPerUser) {
    row.bucket_kind = QuotaTarget::kUser;
    row.bucket_id = user_id;
    row.usage = s.quota_index.OfUser(user_id);
  } else if (row.assignment->mode == QuotaMode::kShared) {
    row.is_nested = true;
    row.usage = s.quota_index.OfTree(target);
  } else if (is_direct) {
    row.usage = s.quota_index.OfGroup(target);
  } else {
    return;  // the group's own sum: members of groups nested in it don't count
  }
  rows.push_back(std::move(row));
}

std::vector<QuotaRow> Quotas::Applying(const std::string& user_id) const {
  const Engine::State& s = *engine_.state_;
  std::vector<QuotaRow> rows;
  if (!s.quota_assignments.rows().empty()) {
    AddRow(user_id, QuotaTarget::kUser, user_id, /*is_direct=*/true, rows);
    const std::set<std::string>& direct = s.quota_index.GroupsOf(user_id);
    for (const std::string& group : s.quota_index.GroupsAround(user_id)) {
      AddRow(user_id, QuotaTarget::kGroup, group, direct.count(group) > 0, rows);
    }
  }
  if (!rows.empty()) return rows;
  const auto it = s.quota_profile_by_name.find(std::string("platform/") + kDefaultQuotaProfile);
  if (it == s.quota_profile_by_name.end()) return rows;
  QuotaRow row;
  row.profile = s.quota_profiles.Find(it->second);
  row.bucket_id = user_id;
  row.usage = s.quota_index.OfUser(user_id);
  rows.push_back(std::move(row));
  return rows;
}

absl::Status Quotas::Check(const std::string& user_id, const QuotaUsage& each,
                           uint64_t count) const {
  for (const QuotaRow& row : Applying(user_id)) {
    if (const auto breach = BreachOf(row.profile->caps, row.usage, each, count)) {
      return Exceeded(row, *breach, count);
    }
  }
  return absl::OkStatus();
}

}  // namespace bunker::controller
