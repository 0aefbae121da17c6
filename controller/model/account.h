// Partner → Tenant → User, the groups that users are in, and the keys that they hold. Rows, no
// rules.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "absl/time/time.h"
#include "controller/model/enum_names.h"
#include "controller/model/scope.h"

namespace bunker::controller {

struct Partner {
  std::string id;  // ptr_…
  std::string name;
  absl::Time created_at;
};

enum class TenantStatus { kActive, kSuspended };
inline constexpr EnumName<TenantStatus> kTenantStatusNames[] = {
    {TenantStatus::kActive, "active"}, {TenantStatus::kSuspended, "suspended"}};
inline std::span<const EnumName<TenantStatus>> EnumNames(TenantStatus) {
  return kTenantStatusNames;
}

struct Tenant {
  std::string id;  // tnt_…
  std::string name;
  std::string partner_id;
  TenantStatus status = TenantStatus::kActive;
  absl::Time created_at;
};

enum class Role { kTenantViewer, kTenantUser, kTenantAdmin, kPartnerAdmin, kSuperAdmin };
inline constexpr EnumName<Role> kRoleNames[] = {{Role::kTenantViewer, "tenant_viewer"},
                                                {Role::kTenantUser, "tenant_user"},
                                                {Role::kTenantAdmin, "tenant_admin"},
                                                {Role::kPartnerAdmin, "partner_admin"},
                                                {Role::kSuperAdmin, "super_admin"}};
inline std::span<const EnumName<Role>> EnumNames(Role) { return kRoleNames; }

enum class UserStatus { kActive, kDisabled };
inline constexpr EnumName<UserStatus> kUserStatusNames[] = {{UserStatus::kActive, "active"},
                                                            {UserStatus::kDisabled, "disabled"}};
inline std::span<const EnumName<UserStatus>> EnumNames(UserStatus) { return kUserStatusNames; }

struct User {
  std::string id;  // usr_…
  std::string tenant_id;
  std::string name;
  Role role = Role::kTenantUser;
  UserStatus status = UserStatus::kActive;
  std::set<std::string> permissions;  // beyond the role's
  std::set<std::string> group_ids;    // user groups that it is a member of
  absl::Time created_at;
};

// Users of one tenant. Groups nest: whoever is in one is in all around it, too.
struct UserGroup {
  std::string id;  // grp_…
  std::string tenant_id;
  std::string name;
  std::string parent_id;  // "" = none
  std::set<std::string> permissions;
  absl::Time created_at;
  absl::Time updated_at;
};

// A bearer key. The secret itself is nowhere.
struct ApiKey {
  std::string id;      // key_…
  std::string sha256;  // 64 hex digits of the whole key; unique
  std::string user_id;
  std::string tenant_id;
  std::string name;
  // What the key may do at most; nothing = whatever its user may. What the user loses, the key
  // loses, too.
  std::optional<std::set<std::string>> permissions;
  // The highest role that the key acts with; nothing = its user's, whatever that is.
  std::optional<Role> max_role;
  std::optional<uint32_t> rate_limit_per_s;  // nothing = the operator's default
  std::optional<absl::Time> expires_at;
  std::optional<absl::Time> revoked_at;
  absl::Time created_at;
};

// Who asks. The API fills it from Engine::Authenticate and its table of permissions.
struct Caller {
  std::string user_id;
  std::string tenant_id;
  std::string partner_id;
  std::string key_id;
  Role role = Role::kTenantUser;
  std::set<std::string> permissions;  // effective, "scaibunker:…"
  // May see every bunker of the tenant, not just its own (`scaibunker:admin`, or a viewer).
  bool sees_all_bunkers = false;
  // May act on every bunker that it sees (`scaibunker:admin`).
  bool manages_all_bunkers = false;

  Ownership ownership() const { return {Scope::kTenant, tenant_id, partner_id}; }
  bool super_admin() const { return role == Role::kSuperAdmin; }
  // May change what is the platform's.
  bool platform_admin() const {
    return super_admin() || permissions.count("scaibunker:admin:platform") > 0;
  }
};

// The operator on the root-only socket, and the link: everything is visible.
inline Caller OperatorCaller() {
  Caller caller;
  caller.role = Role::kSuperAdmin;
  caller.sees_all_bunkers = true;
  caller.manages_all_bunkers = true;
  return caller;
}

}  // namespace bunker::controller
