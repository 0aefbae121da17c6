// Users, and the groups they are in.
#include <string>

#include "bunker/v1/account.pb.h"
#include "common/base/status_macros.h"
#include "controller/api/account_fields.h"
#include "controller/api/convert.h"
#include "controller/api/services.h"

namespace bunker::controller {
namespace {

constexpr char kUsers[] = "users";
constexpr char kUserGroups[] = "user_groups";

absl::Status CheckName(std::string_view name) {
  Validator v;
  CheckAccountName("name", name, &v);
  return v.status();
}

absl::StatusOr<v1::User> UserOf(CallContext& context, const absl::StatusOr<RowPtr<User>>& row) {
  if (!row.ok()) return row.status();
  v1::User message;
  ToMessage(context.engine.accounts(), **row, &message);
  return message;
}

absl::StatusOr<v1::UserGroup> GroupOf(CallContext& context,
                                      const absl::StatusOr<RowPtr<UserGroup>>& row) {
  if (!row.ok()) return row.status();
  v1::UserGroup message;
  ToMessage(context.engine.accounts(), **row, &message);
  return message;
}

// ---- users --------------------------------------------------------------------------------------

absl::StatusOr<v1::User> CreateUser(CallContext& context, const v1::CreateUserRequest& request) {
  RETURN_IF_ERROR(CheckName(request.name()));
  CreateUserSpec spec;
  spec.name = request.name();
  spec.role = ToModel<Role>(request.role()).value_or(Role::kTenantUser);
  spec.status = ToModel<UserStatus>(request.status()).value_or(UserStatus::kActive);
  spec.tenant_id = request.tenant_id();
  return UserOf(context, context.engine.accounts().CreateUser(context.turn, context.caller, spec));
}

absl::StatusOr<v1::ListUsersResponse> ListUsers(const Cursors& cursors, CallContext& context,
                                                const v1::ListUsersRequest& request) {
  const Accounts& accounts = context.engine.accounts();
  const std::string& tenant = context.caller.tenant_id;
  ASSIGN_OR_RETURN(const PageSpec page, cursors.PageOf(tenant, kUsers, request));
  ASSIGN_OR_RETURN(
      const Page<User> found,
      accounts.ListUsers(context.caller, {request.tenant_id(), request.group()}, page));
  v1::ListUsersResponse response;
  for (const RowPtr<User>& row : found.rows) ToMessage(accounts, *row, response.add_users());
  response.set_has_more(found.has_more);
  if (found.has_more) response.set_next_cursor(cursors.Make(tenant, kUsers, found.rows.back()->id));
  return response;
}

absl::StatusOr<v1::User> UpdateUser(CallContext& context, const v1::UpdateUserRequest& request) {
  UpdateUserSpec spec;
  if (request.has_name()) {
    RETURN_IF_ERROR(CheckName(request.name()));
    spec.name = request.name();
  }
  spec.role = ToModel<Role>(request.role());
  spec.status = ToModel<UserStatus>(request.status());
  return UserOf(context, context.engine.accounts().UpdateUser(context.turn, context.caller,
                                                              request.user(), spec));
}

absl::StatusOr<v1::User> SetPermissions(CallContext& context,
                                        const v1::SetModulePermissionsRequest& request) {
  ASSIGN_OR_RETURN(const std::set<std::string> permissions, PermissionsFrom(request.permissions()));
  return UserOf(context, context.engine.accounts().SetPermissions(context.turn, context.caller,
                                                                  request.user(), permissions));
}

// ---- user groups --------------------------------------------------------------------------------

absl::StatusOr<v1::UserGroup> CreateGroup(CallContext& context,
                                          const v1::CreateUserGroupRequest& request) {
  RETURN_IF_ERROR(CheckName(request.name()));
  CreateUserGroupSpec spec;
  spec.name = request.name();
  spec.parent_id = request.parent_id();
  spec.tenant_id = request.tenant_id();
  ASSIGN_OR_RETURN(spec.permissions, PermissionsFrom(request.permissions()));
  return GroupOf(context,
                 context.engine.accounts().CreateUserGroup(context.turn, context.caller, spec));
}

absl::StatusOr<v1::ListUserGroupsResponse> ListGroups(const Cursors& cursors, CallContext& context,
                                                      const v1::ListUserGroupsRequest& request) {
  const Accounts& accounts = context.engine.accounts();
  const std::string& tenant = context.caller.tenant_id;
  ASSIGN_OR_RETURN(const PageSpec page, cursors.PageOf(tenant, kUserGroups, request));
  ASSIGN_OR_RETURN(const Page<UserGroup> found,
                   accounts.ListUserGroups(context.caller, request.tenant_id(), page));
  v1::ListUserGroupsResponse response;
  for (const RowPtr<UserGroup>& row : found.rows) ToMessage(accounts, *row, response.add_groups());
  response.set_has_more(found.has_more);
  if (found.has_more)
    response.set_next_cursor(cursors.Make(tenant, kUserGroups, found.rows.back()->id));
  return response;
}

absl::StatusOr<v1::UserGroup> UpdateGroup(CallContext& context,
                                          const v1::UpdateUserGroupRequest& request) {
  UpdateUserGroupSpec spec;
  if (request.has_name()) {
    RETURN_IF_ERROR(CheckName(request.name()));
    spec.name = request.name();
  }
  if (request.has_parent_id() || MaskHas(request.update_mask(), "parent_id"))
    spec.parent_id = request.parent_id();
  if (request.permissions_size() > 0 || MaskHas(request.update_mask(), "permissions")) {
    ASSIGN_OR_RETURN(spec.permissions, PermissionsFrom(request.permissions()));
  }
  return GroupOf(context, context.engine.accounts().UpdateUserGroup(context.turn, context.caller,
                                                                    request.group(), spec));
}

void RegisterUsers(const Cursors* cursors, Dispatcher* dispatcher) {
  const std::string service = "bunker.v1.Users.";
  dispatcher->For(service + "CreateUser").Register<v1::CreateUserRequest, v1::User>(CreateUser);
  dispatcher->For(service + "ListUsers")
      .Register<v1::ListUsersRequest, v1::ListUsersResponse>(
          [cursors](CallContext& context, const v1::ListUsersRequest& request) {
            return ListUsers(*cursors, context, request);
          });
  dispatcher->For(service + "GetUser")
      .Register<v1::GetUserRequest, v1::User>([](CallContext& context,
                                                 const v1::GetUserRequest& request) {
        return UserOf(context, context.engine.accounts().FindUser(context.caller, request.user()));
      });
  dispatcher->For(service + "UpdateUser").Register<v1::UpdateUserRequest, v1::User>(UpdateUser);
  dispatcher->For(service + "DeleteUser")
      .Register<v1::DeleteUserRequest, v1::User>(
          [](CallContext& context, const v1::DeleteUserRequest& request) {
            return UserOf(context, context.engine.accounts().DeleteUser(
                                       context.turn, context.caller, request.user()));
          });
  dispatcher->For(service + "SetModulePermissions")
      .Register<v1::SetModulePermissionsRequest, v1::User>(SetPermissions);
}

}  // namespace

void RegisterUserService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  const Cursors* cursors = deps.cursors;
  RegisterUsers(cursors, dispatcher);
  using Row = v1::UserGroup;
  const std::string service = "bunker.v1.UserGroups.";
  dispatcher->For(service + "CreateUserGroup")
      .Register<v1::CreateUserGroupRequest, Row>(CreateGroup);
  dispatcher->For(service + "ListUserGroups")
      .Register<v1::ListUserGroupsRequest, v1::ListUserGroupsResponse>(
          [cursors](CallContext& context, const v1::ListUserGroupsRequest& request) {
            return ListGroups(*cursors, context, request);
          });
  dispatcher->For(service + "GetUserGroup")
      .Register<v1::GetUserGroupRequest, Row>(
          [](CallContext& context, const v1::GetUserGroupRequest& request) {
            return GroupOf(
                context, context.engine.accounts().FindUserGroup(context.caller, request.group()));
          });
  dispatcher->For(service + "UpdateUserGroup")
      .Register<v1::UpdateUserGroupRequest, Row>(UpdateGroup);
  dispatcher->For(service + "DeleteUserGroup")
      .Register<v1::DeleteUserGroupRequest, Row>(
          [](CallContext& context, const v1::DeleteUserGroupRequest& request) {
            return GroupOf(context, context.engine.accounts().DeleteUserGroup(
                                        context.turn, context.caller, request.group()));
          });
  dispatcher->For(service + "AddMember")
      .Register<v1::AddMemberRequest, Row>([](CallContext& context,
                                              const v1::AddMemberRequest& request) {
        return GroupOf(context, context.engine.accounts().AddMember(
                                    context.turn, context.caller, request.group(), request.user()));
      });
  dispatcher->For(service + "RemoveMember")
      .Register<v1::RemoveMemberRequest, Row>([](CallContext& context,
                                                 const v1::RemoveMemberRequest& request) {
        return GroupOf(context, context.engine.accounts().RemoveMember(
                                    context.turn, context.caller, request.group(), request.user()));
      });
}

}  // namespace bunker::controller
