// Partners, tenants, and who a key is.
#include "controller/engine/accounts.h"

#include <algorithm>
#include <utility>

#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/engine/account_rules.h"
#include "controller/engine/state.h"
#include "controller/model/permissions.h"

namespace bunker::controller {

absl::Status NameTaken(std::string_view noun, std::string_view name) {
  return ReasonError(absl::StatusCode::kAlreadyExists, "SLUG_CONFLICT",
                     "a " + std::string(noun) + " named \"" + std::string(name) +
                         "\" exists: choose another name");
}

absl::Status InUse(const std::string& message) {
  return ReasonError(absl::StatusCode::kFailedPrecondition, "RESOURCE_IN_USE", message);
}

absl::Status TooMany(std::string_view nouns, size_t limit) {
  return InUse("there are " + std::to_string(limit) + " " + std::string(nouns) +
               ", the most allowed: delete some");
}

absl::Status Stronger(std::string_view what) {
  return Denied("this " + std::string(what) + " is stronger than you are",
                "ask one who holds all its permissions and at least its role");
}

absl::StatusOr<AuthResult> Accounts::Authenticate(absl::Time now, const std::string& sha256) const {
  const Engine::State& s = state_;
  const auto refused = [] {
    return ReasonError(absl::StatusCode::kUnauthenticated, "AUTH_TOKEN_INVALID",
                       "the key is unknown or revoked: ask an admin of your tenant for a new one");
  };
  const auto it = s.account_index.key_by_sha256.find(sha256);
  if (it == s.account_index.key_by_sha256.end()) return refused();
  AuthResult result;
  result.key = s.api_keys.Find(it->second);
  if (result.key->revoked_at) return refused();
  if (result.key->expires_at && now >= *result.key->expires_at) {
    return ReasonError(absl::StatusCode::kUnauthenticated, "SESSION_EXPIRED",
                       "the key has expired: make a new one");
  }
  result.user = s.users.Find(result.key->user_id);
  result.tenant = s.tenants.Find(result.key->tenant_id);
  if (result.user == nullptr || result.tenant == nullptr ||
      result.user->status != UserStatus::kActive ||
      result.tenant->status != TenantStatus::kActive) {
    return refused();
  }
  result.partner = s.partners.Find(result.tenant->partner_id);
  if (result.partner == nullptr) return refused();

  result.role = result.user->role;
  if (result.key->max_role) result.role = std::min(result.role, *result.key->max_role);
  std::set<std::string> held = PermissionsOf(result.role);
  held.insert(result.user->permissions.begin(), result.user->permissions.end());
  for (const std::string& group : GroupsOfUser(*result.user)) {
    const RowPtr<UserGroup> row = s.user_groups.Find(group);
    held.insert(row->permissions.begin(), row->permissions.end());
  }
  if (result.key->permissions) {
    for (const std::string& permission : *result.key->permissions) {
      if (held.count(permission) > 0) result.permissions.insert(permission);
    }
  } else {
    result.permissions = std::move(held);
  }
  // A super admin is a partner admin who holds admin:platform: a key that was not given it acts
  // as the latter.
  if (result.role == Role::kSuperAdmin && result.permissions.count(kAdminPlatform) == 0)
    result.role = Role::kPartnerAdmin;
  return result;
}

std::set<std::string> Accounts::PermissionsOfUser(const User& user) const {
  std::set<std::string> held = PermissionsOf(user.role);
  held.insert(user.permissions.begin(), user.permissions.end());
  for (const std::string& group : GroupsOfUser(user)) {
    const RowPtr<UserGroup> row = state_.user_groups.Find(group);
    held.insert(row->permissions.begin(), row->permissions.end());
  }
  return held;
}

// ---- partners -----------------------------------------------------------------------------------

absl::StatusOr<RowPtr<Partner>> Accounts::CreatePartner(Turn& turn, const std::string& name) {
  Engine::State& s = state_;
  if (s.account_index.partner_by_name.count(name) > 0) return NameTaken("partner", name);
  if (s.partners.rows().size() >= kMaxPartners) return TooMany("partners", kMaxPartners);
  return s.partners.Put(turn, {s.MakeId("ptr_", turn.now()), name, turn.now()});
}

absl::StatusOr<RowPtr<Partner>> Accounts::FindPartner(const std::string& id) const {
  RowPtr<Partner> row = state_.partners.Find(id);
  if (row == nullptr) return NotFound("partner", id);
  return row;
}

Page<Partner> Accounts::ListPartners(const PageSpec& page) const {
  return NewestFirst<Partner>(state_.partners.rows(), page, [](const Partner&) { return true; });
}

absl::StatusOr<RowPtr<Partner>> Accounts::RenamePartner(Turn& turn, const std::string& id,
                                                        const std::string& name) {
  Engine::State& s = state_;
  ASSIGN_OR_RETURN(const RowPtr<Partner> found, FindPartner(id));
  if (found->name == name) return found;
  if (s.account_index.partner_by_name.count(name) > 0) return NameTaken("partner", name);
  Partner row = *found;
  row.name = name;
  return s.partners.Put(turn, std::move(row));
}

absl::StatusOr<RowPtr<Partner>> Accounts::DeletePartner(Turn& turn, const std::string& id) {
  Engine::State& s = state_;
  ASSIGN_OR_RETURN(const RowPtr<Partner> found, FindPartner(id));
  const size_t tenants = s.account_index.tenants_of_partner.Of(id).size();
  if (tenants > 0) {
    return InUse("the partner has " + std::to_string(tenants) + " tenants: delete them first");
  }
  const std::string owner = OwnerKey({Scope::kPartner, "", id});
  for (const std::string& image : s.images_of_owner.Of(owner)) {
    if (s.images.Find(image)->active)
      return InUse("the partner has active images: deactivate them first");
  }
  if (!s.groups_of_owner.Of(owner).empty())
    return InUse("the partner has availability groups: delete them first");
  for (const auto& [worker_id, worker] : s.workers.rows()) {
    if (OwnerKey(worker->ownership) == owner)
      return InUse("the partner has workers: remove them first");
  }
  s.partners.Erase(turn, id);
  return found;
}

// ---- tenants ------------------------------------------------------------------------------------

bool Accounts::MaySeeTenant(const Caller& caller, const std::string& tenant_id) const {
  if (caller.super_admin()) return true;
  if (tenant_id == caller.tenant_id) return true;
  if (caller.role != Role::kPartnerAdmin) return false;
  const RowPtr<Tenant> tenant = state_.tenants.Find(tenant_id);
  return tenant != nullptr && tenant->partner_id == caller.partner_id;
}

absl::StatusOr<RowPtr<Tenant>> Accounts::FindTenant(const Caller& caller,
                                                    const std::string& id) const {
  RowPtr<Tenant> row = state_.tenants.Find(id);
  if (row == nullptr || !MaySeeTenant(caller, id)) return NotFound("tenant", id);
  return row;
}

// The one that is named, or else the caller's.
absl::StatusOr<RowPtr<Tenant>> Accounts::TenantToUse(const Caller& caller,
                                                     const std::string& id) const {
  if (id.empty() && caller.tenant_id.empty())
    return Invalid("tenant_id: is required of the operator, who belongs to no tenant");
  return FindTenant(caller, id.empty() ? caller.tenant_id : id);
}

Page<Tenant> Accounts::ListTenants(const Caller& caller, const std::string& partner_id,
                                   const PageSpec& page) const {
  return NewestFirst<Tenant>(state_.tenants.rows(), page, [&](const Tenant& row) {
    return MaySeeTenant(caller, row.id) && (partner_id.empty() || row.partner_id == partner_id);
  });
}

absl::StatusOr<RowPtr<Tenant>> Accounts::CreateTenant(Turn& turn, const Caller& caller,
                                                      const CreateTenantSpec& spec) {
  Engine::State& s = state_;
  const std::string partner_id = spec.partner_id.empty() ? caller.partner_id : spec.partner_id;
  if (partner_id.empty())
    return Invalid("partner_id: is required of the operator, who belongs to no partner");
  if (s.partners.Find(partner_id) == nullptr ||
      (!caller.super_admin() && partner_id != caller.partner_id)) {
    return NotFound("partner", partner_id);
  }
  if (s.account_index.tenant_by_name.count(partner_id + "/" + spec.name) > 0)
    return NameTaken("tenant", spec.name);
  if (s.account_index.tenants_of_partner.Of(partner_id).size() >= kMaxTenantsOfPartner)
    return TooMany("tenants of this partner", kMaxTenantsOfPartner);
  Tenant row;
  row.id = s.MakeId("tnt_", turn.now());
  row.name = spec.name;
  row.partner_id = partner_id;
  row.status = spec.status;
  row.created_at = turn.now();
  return s.tenants.Put(turn, std::move(row));
}

// Whoever stops a tenant stops its users.
absl::Status Accounts::CheckNoneStronger(const Caller& caller, const Tenant& tenant) const {
  for (const std::string& id : state_.account_index.users_of_tenant.Of(tenant.id)) {
    if (state_.users.Find(id)->role > caller.role)
      return Denied("the tenant has users of a stronger role than yours",
                    "ask one who has at least that role");
  }
  return absl::OkStatus();
}

absl::StatusOr<RowPtr<Tenant>> Accounts::UpdateTenant(Turn& turn, const Caller& caller,
                                                      const std::string& id,
                                                      const UpdateTenantSpec& spec) {
  Engine::State& s = state_;
  ASSIGN_OR_RETURN(const RowPtr<Tenant> found, FindTenant(caller, id));
  Tenant row = *found;
  if (spec.name && *spec.name != row.name) {
    if (s.account_index.tenant_by_name.count(row.partner_id + "/" + *spec.name) > 0)
      return NameTaken("tenant", *spec.name);
    row.name = *spec.name;
  }
  if (spec.status && *spec.status != row.status) {
    RETURN_IF_ERROR(CheckNoneStronger(caller, row));
    if (id == caller.tenant_id)
      return InUse("this is your own tenant: another partner's or super admin can suspend it");
    row.status = *spec.status;
  }
  return s.tenants.Put(turn, std::move(row));
}

absl::Status Accounts::CheckTenantEmpty(const Tenant& tenant) const {
  const Engine::State& s = state_;
  const size_t live = s.live_of_tenant.Of(tenant.id).size();
  if (live > 0) {
    return InUse("the tenant has " + std::to_string(live) +
                 " live bunkers: delete them first, or suspend the tenant");
  }
  if (const size_t kept = s.snapshots_of_tenant.Of(tenant.id).size(); kept > 0) {
    return InUse("the tenant has " + std::to_string(kept) + " snapshots: delete them first");
  }
  const std::string owner = OwnerKey({Scope::kTenant, tenant.id, tenant.partner_id});
  for (const std::string& image : s.images_of_owner.Of(owner)) {
    if (s.images.Find(image)->active)
      return InUse("the tenant has active images: deactivate them first");
  }
  if (!s.groups_of_owner.Of(owner).empty())
    return InUse("the tenant has availability groups: delete them first");
  for (const auto& [id, worker] : s.workers.rows()) {
    if (worker->ownership.scope == Scope::kTenant && worker->ownership.tenant_id == tenant.id)
      return InUse("the tenant has workers: remove them first");
  }
  return absl::OkStatus();
}

absl::StatusOr<RowPtr<Tenant>> Accounts::DeleteTenant(Turn& turn, const Caller& caller,
                                                      const std::string& id) {
  Engine::State& s = state_;
  ASSIGN_OR_RETURN(const RowPtr<Tenant> found, FindTenant(caller, id));
  RETURN_IF_ERROR(CheckNoneStronger(caller, *found));
  if (id == caller.tenant_id)
    return InUse("this is your own tenant: another partner's or super admin can delete it");
  RETURN_IF_ERROR(CheckTenantEmpty(*found));
  const std::set<std::string> users = s.account_index.users_of_tenant.Of(id);
  for (const std::string& user : users) EraseUser(turn, user);
  const std::set<std::string> groups = s.account_index.user_groups_of_tenant.Of(id);
  for (const std::string& group : groups) s.user_groups.Erase(turn, group);
  s.tenants.Erase(turn, id);
  return found;
}

}  // namespace bunker::controller
