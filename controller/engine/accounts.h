// Partners, tenants, users, user groups and keys: who they are, and who may change them.
//
// Two rules hold everywhere. What the caller may not see is NOT_FOUND: a tenant's administrator
// sees its tenant, a partner's those of its partner, a super admin all. And nobody grants, takes
// away or acts on what is stronger than itself (AUTHZ_PERMISSION_DENIED): a user, a user group or
// a key can only be changed by one who holds all its permissions and at least its role, before and
// after the change. Which permission each call needs at all is the API's table.
//
// As with the engine's other calls: on the core's loop, an error changed nothing, results may be
// ahead of the disk. Errors about an argument are VALIDATION_ERROR "<field>: …".
#pragma once

#include <optional>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "controller/engine/engine.h"

namespace bunker::controller {

struct CreateTenantSpec {
  std::string name;
  std::string partner_id;  // "" = the caller's
  TenantStatus status = TenantStatus::kActive;
};
struct UpdateTenantSpec {
  std::optional<std::string> name;
  std::optional<TenantStatus> status;
};
struct CreateUserSpec {
  std::string name;
  Role role = Role::kTenantUser;
  UserStatus status = UserStatus::kActive;
  std::string tenant_id;  // "" = the caller's
};
struct UpdateUserSpec {
  std::optional<std::string> name;
  std::optional<Role> role;
  std::optional<UserStatus> status;
};
struct CreateUserGroupSpec {
  std::string name;
  std::string parent_id;  // "" = none
  std::set<std::string> permissions;
  std::string tenant_id;  // "" = the parent's, or the caller's
};
struct UpdateUserGroupSpec {
  std::optional<std::string> name;
  std::optional<std::string> parent_id;  // "" = none
  std::optional<std::set<std::string>> permissions;
};
struct CreateApiKeySpec {
  std::string name;
  std::string sha256;                                // of the key, which the engine never sees
  std::string user_id;                               // "" = the caller
  std::optional<std::set<std::string>> permissions;  // nothing = what the user holds
  std::optional<absl::Time> expires_at;
  std::optional<uint32_t> rate_limit_per_s;
};
struct UserFilter {
  std::string tenant_id;  // "" = any
  std::string group_id;   // "" = any
};

class Accounts {
 public:
  // `state` must outlive it.
  explicit Accounts(Engine::State& state) : state_(state) {}

  // ---- who a key is ---------------------------------------------------------------------------

  // See Engine::Authenticate().
  absl::StatusOr<AuthResult> Authenticate(absl::Time now, const std::string& sha256) const;
  // What a user holds: by its role, by itself, and by its groups and all around them.
  std::set<std::string> PermissionsOfUser(const User& user) const;

  // ---- partners: for super admins, which the API's table sees to ------------------------------

  absl::StatusOr<RowPtr<Partner>> CreatePartner(Turn& turn, const std::string& name);
  absl::StatusOr<RowPtr<Partner>> FindPartner(const std::string& id) const;
  Page<Partner> ListPartners(const PageSpec& page) const;
  absl::StatusOr<RowPtr<Partner>> RenamePartner(Turn& turn, const std::string& id,
                                                const std::string& name);
  // RESOURCE_IN_USE while it has tenants.
  absl::StatusOr<RowPtr<Partner>> DeletePartner(Turn& turn, const std::string& id);

  // ---- tenants --------------------------------------------------------------------------------

  absl::StatusOr<RowPtr<Tenant>> CreateTenant(Turn& turn, const Caller& caller,
                                              const CreateTenantSpec& spec);
  absl::StatusOr<RowPtr<Tenant>> FindTenant(const Caller& caller, const std::string& id) const;
  Page<Tenant> ListTenants(const Caller& caller, const std::string& partner_id,
                           const PageSpec& page) const;
  // RESOURCE_IN_USE for suspending the caller's own.
  absl::StatusOr<RowPtr<Tenant>> UpdateTenant(Turn& turn, const Caller& caller,
                                              const std::string& id, const UpdateTenantSpec& spec);
  // With its users, user groups and keys. RESOURCE_IN_USE for the caller's own, and while there
  // are live bunkers, active images, availability groups or workers.
  absl::StatusOr<RowPtr<Tenant>> DeleteTenant(Turn& turn, const Caller& caller,
                                              const std::string& id);

  // ---- users ----------------------------------------------------------------------------------

  absl::StatusOr<RowPtr<User>> CreateUser(Turn& turn, const Caller& caller,
                                          const CreateUserSpec& spec);
  absl::StatusOr<RowPtr<User>> FindUser(const Caller& caller, const std::string& id) const;
  // NOT_FOUND for a filter's tenant or group that the caller may not see.
  absl::StatusOr<Page<User>> ListUsers(const Caller& caller, const UserFilter& filter,
                                       const PageSpec& page) const;
  // RESOURCE_IN_USE for the caller's own role and status: another administrator changes them.
  absl::StatusOr<RowPtr<User>> UpdateUser(Turn& turn, const Caller& caller, const std::string& id,
                                          const UpdateUserSpec& spec);
  absl::StatusOr<RowPtr<User>> SetPermissions(Turn& turn, const Caller& caller,
                                              const std::string& id,
                                              const std::set<std::string>& permissions);
  // With its keys. RESOURCE_IN_USE for the caller itself, and while the user owns live bunkers.
  absl::StatusOr<RowPtr<User>> DeleteUser(Turn& turn, const Caller& caller, const std::string& id);

  // ---- user groups ----------------------------------------------------------------------------

  absl::StatusOr<RowPtr<UserGroup>> CreateUserGroup(Turn& turn, const Caller& caller,
                                                    const CreateUserGroupSpec& spec);
  absl::StatusOr<RowPtr<UserGroup>> FindUserGroup(const Caller& caller,
                                                  const std::string& id) const;
  absl::StatusOr<Page<UserGroup>> ListUserGroups(const Caller& caller, const std::string& tenant_id,
                                                 const PageSpec& page) const;
  // A cycle is a VALIDATION_ERROR.
  absl::StatusOr<RowPtr<UserGroup>> UpdateUserGroup(Turn& turn, const Caller& caller,
                                                    const std::string& id,
                                                    const UpdateUserGroupSpec& spec);
  // RESOURCE_IN_USE while groups are nested in it.
  absl::StatusOr<RowPtr<UserGroup>> DeleteUserGroup(Turn& turn, const Caller& caller,
                                                    const std::string& id);
  // Both idempotent.
  absl::StatusOr<RowPtr<UserGroup>> AddMember(Turn& turn, const Caller& caller,
                                              const std::string& group_id,
                                              const std::string& user_id);
  absl::StatusOr<RowPtr<UserGroup>> RemoveMember(Turn& turn, const Caller& caller,
                                                 const std::string& group_id,
                                                 const std::string& user_id);
  size_t MemberCount(const std::string& group_id) const;
  // The group and all that are nested in it; "" or unknown: none.
  std::set<std::string> WithNested(const std::string& group_id) const;
  // The groups that the user is in, directly or by nesting.
  std::set<std::string> GroupsOfUser(const User& user) const;

  // ---- keys -----------------------------------------------------------------------------------

  // A key for another user, and one made with a restricted key, is bound to what was granted: it
  // does not grow with its user.
  absl::StatusOr<RowPtr<ApiKey>> CreateApiKey(Turn& turn, const Caller& caller,
                                              const CreateApiKeySpec& spec);
  absl::StatusOr<RowPtr<ApiKey>> FindApiKey(const Caller& caller, const std::string& id) const;
  absl::StatusOr<Page<ApiKey>> ListApiKeys(const Caller& caller, const std::string& user_id,
                                           const PageSpec& page) const;
  // Repeatable.
  absl::StatusOr<RowPtr<ApiKey>> RevokeApiKey(Turn& turn, const Caller& caller,
                                              const std::string& id);

  // Forgets keys that were revoked or expired long ago. From the sweep.
  void Sweep(Turn& turn);

 private:
  bool MaySeeTenant(const Caller& caller, const std::string& tenant_id) const;
  absl::StatusOr<RowPtr<Tenant>> TenantToUse(const Caller& caller, const std::string& id) const;
  absl::Status CheckCovers(const Caller& caller, const User& user) const;
  absl::Status CheckCovers(const Caller& caller, const UserGroup& group) const;
  absl::Status CheckHoldsRole(const Caller& caller, Role role) const;
  absl::Status CheckNoneStronger(const Caller& caller, const Tenant& tenant) const;
  absl::Status CheckParent(const UserGroup& group) const;
  absl::Status CheckTenantEmpty(const Tenant& tenant) const;
  std::set<std::string> PermissionsOfGroup(const std::string& group_id) const;
  size_t Height(const std::string& group_id) const;
  absl::StatusOr<RowPtr<UserGroup>> ChangeMember(Turn& turn, const Caller& caller,
                                                 const std::string& group_id,
                                                 const std::string& user_id, bool member);
  void EraseUser(Turn& turn, const std::string& id);

  Engine::State& state_;
};

}  // namespace bunker::controller
