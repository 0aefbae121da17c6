#include "controller/model/permissions.h"

#include "common/base/log.h"

namespace bunker::controller {
namespace {

constexpr const char* kAll[] = {"create",
                                "create:session",
                                "create:persistent",
                                "execute",
                                "shell",
                                "files",
                                "root",
                                "network:registry",
                                "network:allowlisted",
                                "network:unrestricted",
                                "network:transit",
                                "l2_transparency",
                                "images:manage",
                                "admin",
                                "admin:tenant",
                                "admin:platform"};

constexpr const char* kTenantUser[] = {"create", "create:session", "execute",         "shell",
                                       "files",  "root",           "network:registry"};

template <size_t N>
std::set<std::string> Keys(const char* const (&names)[N], std::string_view but = "") {
  std::set<std::string> keys;
  for (const char* name : names) {
    if (name != but) keys.insert(std::string(kPermissionPrefix) + name);
  }
  return keys;
}

}  // namespace

const std::set<std::string>& AllPermissions() {
  static const auto* const all = new std::set<std::string>(Keys(kAll));
  return *all;
}

const std::set<std::string>& PermissionsOf(Role role) {
  static const auto* const admin = new std::set<std::string>(Keys(kAll, "admin:platform"));
  static const auto* const user = new std::set<std::string>(Keys(kTenantUser));
  static const auto* const none = new std::set<std::string>();
  switch (role) {
    case Role::kSuperAdmin:
      return AllPermissions();
    case Role::kPartnerAdmin:
    case Role::kTenantAdmin:
      return *admin;
    case Role::kTenantUser:
      return *user;
    case Role::kTenantViewer:
      return *none;
  }
  CheckFailed("an enum value without a name", __FILE__, __LINE__);
}

bool HoldsAll(const std::set<std::string>& holder, const std::set<std::string>& wanted,
              std::string* missing) {
  for (const std::string& permission : wanted) {
    if (holder.count(permission) > 0) continue;
    if (missing != nullptr) *missing = permission;
    return false;
  }
  return true;
}

}  // namespace bunker::controller
