// The permission keys, and the ONE table of what a role holds of them.
//
// Thread-safe: free functions over constants.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "controller/model/account.h"

namespace bunker::controller {

inline constexpr std::string_view kPermissionPrefix = "scaibunker:";

// Every key there is, "scaibunker:…".
const std::set<std::string>& AllPermissions();

// The keys of a role.
const std::set<std::string>& PermissionsOf(Role role);

// Whether `holder` has all of `wanted`; else the first that it lacks in `*missing` (may be null).
bool HoldsAll(const std::set<std::string>& holder, const std::set<std::string>& wanted,
              std::string* missing);

}  // namespace bunker::controller
