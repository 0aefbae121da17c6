// Users and the groups they are in.
#include <algorithm>
#include <utility>

#include "common/base/status_macros.h"
#include "controller/engine/account_rules.h"
#include "controller/engine/accounts.h"
#include "controller/engine/state.h"
#include "controller/model/permissions.h"

namespace bunker::controller {

// ---- who may change whom ------------------------------------------------------------------------

absl::Status Accounts::CheckHoldsRole(const Caller& caller, Role role) const {
  // A viewer sees all of a tenant's bunkers, which not every stronger role does.
  const bool held = role <= caller.role &&
                    HoldsAll(caller.permissions, PermissionsOf(role), nullptr) &&
                    (role != Role::kTenantViewer || caller.sees_all_bunkers);
  if (held) return absl::OkStatus();
  return Denied("the role " + std::string(NameOf(role)) + " is stronger than you are",
                "ask one who holds at least that role, or choose a weaker one");
}

absl::Status Accounts::CheckCovers(const Caller& caller, const User& user) const {
  if (user.role <= caller.role && HoldsAll(caller.permissions, PermissionsOfUser(user), nullptr))
    return absl::OkStatus();
  return Stronger("user");
}

absl::Status Accounts::CheckCovers(const Caller& caller, const UserGroup& group) const {
  std::set<std::string> granted = group.permissions;
  granted.merge(PermissionsOfGroup(group.parent_id));
  std::string missing;
  if (HoldsAll(caller.permissions, granted, &missing)) return absl::OkStatus();
  return Denied("the user group grants " + missing + ", which you don't hold", "ask one who does");
}

namespace {

absl::Status CheckGrants(const Caller& caller, const std::set<std::string>& permissions) {
  std::string missing;
  if (HoldsAll(caller.permissions, permissions, &missing)) return absl::OkStatus();
  return Denied("you don't hold " + missing, "ask one who does to grant it");
}

}  // namespace

// ---- users --------------------------------------------------------------------------------------

absl::StatusOr<RowPtr<User>> Accounts::FindUser(const Caller& caller, const std::string& id) const {
  RowPtr<User> row = state_.users.Find(id);
  if (row == nullptr || !MaySeeTenant(caller, row->tenant_id)) return NotFound("user", id);
  return row;
}

absl::StatusOr<Page<User>> Accounts::ListUsers(const Caller& caller, const UserFilter& filter,
                                               const PageSpec& page) const {
  const Engine::State& s = state_;
  if (!filter.tenant_id.empty()) RETURN_IF_ERROR(FindTenant(caller, filter.tenant_id).status());
  if (!filter.group_id.empty()) RETURN_IF_ERROR(FindUserGroup(caller, filter.group_id).status());
  const auto keep = [&](const User& row) {
    return MaySeeTenant(caller, row.tenant_id) &&
           (filter.tenant_id.empty() || row.tenant_id == filter.tenant_id) &&
           (filter.group_id.empty() || row.group_ids.count(filter.group_id) > 0);
  };
  const auto find = [&](const std::string& id) { return s.users.Find(id); };
  if (!filter.group_id.empty())
    return NewestFirst<User>(s.account_index.members_of_group.Of(filter.group_id), page, find,
                             keep);
  if (caller.role < Role::kPartnerAdmin)
    return NewestFirst<User>(s.account_index.users_of_tenant.Of(caller.tenant_id), page, find,
                             keep);
  return NewestFirst<User>(s.users.rows(), page, keep);
}

absl::StatusOr<RowPtr<User>> Accounts::CreateUser(Turn& turn, const Caller& caller,
                                                  const CreateUserSpec& spec) {
  Engine::State& s = state_;
  ASSIGN_OR_RETURN(const RowPtr<Tenant> tenant, TenantToUse(caller, spec.tenant_id));
  RETURN_IF_ERROR(CheckHoldsRole(caller, spec.role));
  if (s.account_index.user_by_name.count(tenant->id + "/" + spec.name) > 0)
    return NameTaken("user", spec.name);
  if (s.account_index.users_of_tenant.Of(tenant->id).size() >= kMaxUsersOfTenant)
    return TooMany("users in this tenant", kMaxUsersOfTenant);
  User row;
  row.id = s.MakeId("usr_", turn.now());
  row.tenant_id = tenant->id;
  row.name = spec.name;
  row.role = spec.role;
  row.status = spec.status;
  row.created_at = turn.now();
  return s.users.Put(turn, std::move(row));
}

absl::StatusOr<RowPtr<User>> Accounts::UpdateUser(Turn& turn, const Caller& caller,
                                                  const std::string& id,
                                                  const UpdateUserSpec& spec) {
  Engine::State& s = state_;
  ASSIGN_OR_RETURN(const RowPtr<User> found, FindUser(caller, id));
  RETURN_IF_ERROR(CheckCovers(caller, *found));
  User row = *found;
  if (spec.name && *spec.name != row.name) {
    if (s.account_index.user_by_name.count(row.tenant_id + "/" + *spec.name) > 0)
      return NameTaken("user", *spec.name);
    row.name = *spec.name;
  }
  const bool other_role = spec.role && *spec.role != row.role;
  const bool other_status = spec.status && *spec.status != row.status;
  if (other_role) RETURN_IF_ERROR(CheckHoldsRole(caller, *spec.role));
  if ((other_role || other_status) && id == caller.user_id) {
    return InUse(
        "nobody changes the role or status of its own user, to lock nobody out: ask "
        "another administrator");
  }
  if (other_role) row.role = *spec.role;
  if (other_status) row.status = *spec.status;
  return s.users.Put(turn, std::move(row));
}

absl::StatusOr<RowPtr<User>> Accounts::SetPermissions(Turn& turn, const Caller& caller,
                                                      const std::string& id,
                                                      const std::set<std::string>& permissions) {
  ASSIGN_OR_RETURN(const RowPtr<User> found, FindUser(caller, id));
  RETURN_IF_ERROR(CheckCovers(caller, *found));
  RETURN_IF_ERROR(CheckGrants(caller, permissions));
  User row = *found;
  row.permissions = permissions;
  return state_.users.Put(turn, std::move(row));
}

absl::StatusOr<RowPtr<User>> Accounts::DeleteUser(Turn& turn, const Caller& caller,
                                                  const std::string& id) {
  const Engine::State& s = state_;
  ASSIGN_OR_RETURN(const RowPtr<User> found, FindUser(caller, id));
  RETURN_IF_ERROR(CheckCovers(caller, *found));
  if (id == caller.user_id) return InUse("nobody deletes its own user: ask another administrator");
  Caller owner;
  owner.user_id = id;
  BunkerFilter not_ended;
  not_ended.statuses = {BunkerStatus::kPending,  BunkerStatus::kProvisioning,
                        BunkerStatus::kRunning,  BunkerStatus::kPaused,
                        BunkerStatus::kStopping, BunkerStatus::kStopped};
  size_t live = 0;
  s.bunker_index.Walk(owner, not_ended, "", [&](const std::string& bunker) {
    live += s.bunkers.Find(bunker)->live() ? 1 : 0;
    return live == 0;
  });
  if (live > 0) {
    return InUse(
        "the user owns live bunkers: delete them first; disabling the user stops its keys at once");
  }
  EraseUser(turn, id);
  return found;
}

void Accounts::EraseUser(Turn& turn, const std::string& id) {
  Engine::State& s = state_;
  const std::set<std::string> keys = s.account_index.keys_of_user.Of(id);
  for (const std::string& key : keys) s.api_keys.Erase(turn, key);
  s.users.Erase(turn, id);
}

// ---- user groups --------------------------------------------------------------------------------

std::set<std::string> Accounts::GroupsOfUser(const User& user) const {
  std::set<std::string> groups;
  for (std::string id : user.group_ids) {
    // Ends at the root, or where another way up has been.
    while (!id.empty()) {
      const RowPtr<UserGroup> group = state_.user_groups.Find(id);
      if (group == nullptr || !groups.insert(id).second) break;
      id = group->parent_id;
    }
  }
  return groups;
}

std::set<std::string> Accounts::WithNested(const std::string& group_id) const {
  std::set<std::string> found;
  std::vector<std::string> open = {group_id};
  while (!open.empty()) {
    const std::string id = std::move(open.back());
    open.pop_back();
    if (state_.user_groups.Find(id) == nullptr || !found.insert(id).second) continue;
    const std::set<std::string>& nested = state_.account_index.groups_of_parent.Of(id);
    open.insert(open.end(), nested.begin(), nested.end());
  }
  return found;
}

// Of the group and all around it.
std::set<std::string> Accounts::PermissionsOfGroup(const std::string& group_id) const {
  User member;
  member.group_ids = {group_id};
  std::set<std::string> held;
  for (const std::string& id : GroupsOfUser(member)) {
    const RowPtr<UserGroup> group = state_.user_groups.Find(id);
    held.insert(group->permissions.begin(), group->permissions.end());
  }
  return held;
}

// Levels of the group and what is nested in it.
size_t Accounts::Height(const std::string& group_id) const {
  size_t below = 0;
  for (const std::string& id : state_.account_index.groups_of_parent.Of(group_id))
    below = std::max(below, Height(id));
  return below + 1;
}

// That `group`, as it is to be, hangs in a tree of its tenant.
absl::Status Accounts::CheckParent(const UserGroup& group) const {
  size_t depth = 1;
  for (std::string id = group.parent_id; !id.empty();) {
    if (id == group.id) {
      return Invalid(
          "parent_id: the group would be nested in itself: choose a group that is not "
          "below it");
    }
    const RowPtr<UserGroup> around = state_.user_groups.Find(id);
    if (around == nullptr || around->tenant_id != group.tenant_id)
      return NotFound("user group", id);
    id = around->parent_id;
    ++depth;
  }
  // A new group has nothing below it.
  if (depth + Height(group.id) - 1 > kMaxUserGroupDepth) {
    return Invalid("parent_id: groups nest at most " + std::to_string(kMaxUserGroupDepth) +
                   " deep: choose a group further up");
  }
  return absl::OkStatus();
}

absl::StatusOr<RowPtr<UserGroup>> Accounts::FindUserGroup(const Caller& caller,
                                                          const std::string& id) const {
  RowPtr<UserGroup> row = state_.user_groups.Find(id);
  if (row == nullptr || !MaySeeTenant(caller, row->tenant_id)) return NotFound("user group", id);
  return row;
}

absl::StatusOr<Page<UserGroup>> Accounts::ListUserGroups(const Caller& caller,
                                                         const std::string& tenant_id,
                                                         const PageSpec& page) const {
  const Engine::State& s = state_;
  if (!tenant_id.empty()) RETURN_IF_ERROR(FindTenant(caller, tenant_id).status());
  const auto keep = [&](const UserGroup& row) {
    return MaySeeTenant(caller, row.tenant_id) && (tenant_id.empty() || row.tenant_id == tenant_id);
  };
  if (caller.role >= Role::kPartnerAdmin)
    return NewestFirst<UserGroup>(s.user_groups.rows(), page, keep);
  return NewestFirst<UserGroup>(
      s.account_index.user_groups_of_tenant.Of(caller.tenant_id), page,
      [&](const std::string& id) { return s.user_groups.Find(id); }, keep);
}

absl::StatusOr<RowPtr<UserGroup>> Accounts::CreateUserGroup(Turn& turn, const Caller& caller,
                                                            const CreateUserGroupSpec& spec) {
  Engine::State& s = state_;
  std::string tenant_id = spec.tenant_id;
  if (!spec.parent_id.empty()) {
    ASSIGN_OR_RETURN(const RowPtr<UserGroup> parent, FindUserGroup(caller, spec.parent_id));
    if (tenant_id.empty()) tenant_id = parent->tenant_id;
  }
  ASSIGN_OR_RETURN(const RowPtr<Tenant> tenant, TenantToUse(caller, tenant_id));
  UserGroup row;
  row.tenant_id = tenant->id;
  row.name = spec.name;
  row.parent_id = spec.parent_id;
  row.permissions = spec.permissions;
  row.created_at = row.updated_at = turn.now();
  RETURN_IF_ERROR(CheckParent(row));
  RETURN_IF_ERROR(CheckCovers(caller, row));
  if (s.account_index.user_group_by_name.count(tenant->id + "/" + spec.name) > 0)
    return NameTaken("user group", spec.name);
  if (s.account_index.user_groups_of_tenant.Of(tenant->id).size() >= kMaxUserGroupsOfTenant)
    return TooMany("user groups in this tenant", kMaxUserGroupsOfTenant);
  row.id = s.MakeId("grp_", turn.now());
  return s.user_groups.Put(turn, std::move(row));
}

absl::StatusOr<RowPtr<UserGroup>> Accounts::UpdateUserGroup(Turn& turn, const Caller& caller,
                                                            const std::string& id,
                                                            const UpdateUserGroupSpec& spec) {
  Engine::State& s = state_;
  ASSIGN_OR_RETURN(const RowPtr<UserGroup> found, FindUserGroup(caller, id));
  RETURN_IF_ERROR(CheckCovers(caller, *found));
  UserGroup row = *found;
  if (spec.name && *spec.name != row.name) {
    if (s.account_index.user_group_by_name.count(row.tenant_id + "/" + *spec.name) > 0)
      return NameTaken("user group", *spec.name);
    row.name = *spec.name;
  }
  if (spec.parent_id) row.parent_id = *spec.parent_id;
  if (spec.permissions) row.permissions = *spec.permissions;
  RETURN_IF_ERROR(CheckParent(row));
  RETURN_IF_ERROR(CheckCovers(caller, row));
  row.updated_at = turn.now();
  return s.user_groups.Put(turn, std::move(row));
}

absl::StatusOr<RowPtr<UserGroup>> Accounts::DeleteUserGroup(Turn& turn, const Caller& caller,
                                                            const std::string& id) {
  Engine::State& s = state_;
  ASSIGN_OR_RETURN(const RowPtr<UserGroup> found, FindUserGroup(caller, id));
  RETURN_IF_ERROR(CheckCovers(caller, *found));
  const size_t nested = s.account_index.groups_of_parent.Of(id).size();
  if (nested > 0) {
    return InUse(std::to_string(nested) +
                 " groups are nested in this one: delete them or move them first");
  }
  const std::set<std::string> members = s.account_index.members_of_group.Of(id);
  for (const std::string& member : members) {
    User user = *s.users.Find(member);
    user.group_ids.erase(id);
    s.users.Put(turn, std::move(user));
  }
  s.user_groups.Erase(turn, id);
  return found;
}

absl::StatusOr<RowPtr<UserGroup>> Accounts::ChangeMember(Turn& turn, const Caller& caller,
                                                         const std::string& group_id,
                                                         const std::string& user_id, bool member) {
  Engine::State& s = state_;
  ASSIGN_OR_RETURN(const RowPtr<UserGroup> group, FindUserGroup(caller, group_id));
  ASSIGN_OR_RETURN(const RowPtr<User> user, FindUser(caller, user_id));
  // One of another tenant that the caller sees is still none of this group's.
  if (user->tenant_id != group->tenant_id) return NotFound("user", user_id);
  RETURN_IF_ERROR(CheckCovers(caller, *group));
  if ((user->group_ids.count(group_id) > 0) == member) return group;
  if (member && user->group_ids.size() >= kMaxGroupsOfUser)
    return TooMany("groups that this user is in", kMaxGroupsOfUser);
  User row = *user;
  if (member) {
    row.group_ids.insert(group_id);
  } else {
    row.group_ids.erase(group_id);
  }
  s.users.Put(turn, std::move(row));
  return group;
}

absl::StatusOr<RowPtr<UserGroup>> Accounts::AddMember(Turn& turn, const Caller& caller,
                                                      const std::string& group_id,
                                                      const std::string& user_id) {
  return ChangeMember(turn, caller, group_id, user_id, true);
}

absl::StatusOr<RowPtr<UserGroup>> Accounts::RemoveMember(Turn& turn, const Caller& caller,
                                                         const std::string& group_id,
                                                         const std::string& user_id) {
  return ChangeMember(turn, caller, group_id, user_id, false);
}

size_t Accounts::MemberCount(const std::string& group_id) const {
  return state_.account_index.members_of_group.Of(group_id).size();
}

}  // namespace bunker::controller
