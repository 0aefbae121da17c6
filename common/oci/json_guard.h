// JSON from outside, parsed with bounds. Whoever calls it includes nlohmann/json.hpp itself.
// Thread-safe: free functions without state.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

namespace bunker::oci {

// kInvalidArgument where `text` is not one JSON object, is nested deeper than 32, has more than
// 30,000 values or names a member twice (readers differ in which of the two they believe).
absl::StatusOr<nlohmann::json> ParseObject(std::string_view text, std::string_view what);

// The member's string; "" where it is absent, null or no string.
std::string StringOf(const nlohmann::json& object, const char* key);
// The member, or nullptr where it is absent or null.
const nlohmann::json* MemberOf(const nlohmann::json& object, const char* key);
// A whole number from 0 to 2^62; nullopt otherwise.
std::optional<uint64_t> SizeOf(const nlohmann::json& object, const char* key);

}  // namespace bunker::oci
