// Of calls about a bunker that say which incarnation of it they mean.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"

namespace bunker::controller {

// What the header names; nothing where there is none or it is "*". VALIDATION_ERROR for anything
// else than a number, in quotes or not. Thread-safe.
absl::StatusOr<std::optional<uint32_t>> IncarnationOf(std::string_view if_match);

}  // namespace bunker::controller
