// How accounts are found: names, owners, members. Kept by the tables of State.
// Private to the engine's own files.
#pragma once

#include <map>
#include <string>

#include "controller/engine/multi_index.h"
#include "controller/model/account.h"

namespace bunker::controller {

struct AccountIndex {
  void Index(const Partner* before, const Partner* after);
  void Index(const Tenant* before, const Tenant* after);
  void Index(const User* before, const User* after);
  void Index(const UserGroup* before, const UserGroup* after);
  void Index(const ApiKey* before, const ApiKey* after);

  std::map<std::string, std::string> partner_by_name;
  std::map<std::string, std::string> tenant_by_name;      // "<partner>/<name>"
  std::map<std::string, std::string> user_by_name;        // "<tenant>/<name>"
  std::map<std::string, std::string> user_group_by_name;  // "<tenant>/<name>"
  std::map<std::string, std::string> key_by_sha256;
  MultiIndex tenants_of_partner;
  MultiIndex users_of_tenant;
  MultiIndex user_groups_of_tenant;
  MultiIndex members_of_group;  // users
  MultiIndex groups_of_parent;  // user groups
  MultiIndex keys_of_user;
  MultiIndex keys_of_tenant;
};

}  // namespace bunker::controller
