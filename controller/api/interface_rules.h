// The network cards of a bunker of the profile transit: their form, and what they become.
//
// Thread-safe: free functions.
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "bunker/v1/bunker.pb.h"
#include "controller/api/validate.h"
#include "controller/model/bunker.h"

namespace bunker::controller {

inline constexpr int kMaxInterfaces = 8;

// Whether interfaces and profile go together; else INTERFACES_NOT_ALLOWED or
// TRANSIT_MISSING_INTERFACES.
absl::Status CheckInterfacesFit(const v1::BunkerSpec& spec);

void ValidateInterfaces(const v1::BunkerSpec& spec, Validator* validator);

// As the engine takes them. REQUIRES: they were validated.
std::vector<BunkerInterface> InterfacesOf(const v1::BunkerSpec& spec);

// 1 to 15 of A-Z a-z 0-9 . _ -, as Linux names devices; not "." and "..".
bool IsDeviceName(std::string_view name);

}  // namespace bunker::controller
