// Identifiers: a readable prefix and a UUIDv7 (RFC 9562 §5.7) as 32 hex digits.
#pragma once

#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "common/base/rng.h"

namespace bunker {

// "img_0190…": sorts by creation time to a quarter of a microsecond. `prefix` includes the
// underscore.
std::string NewId(std::string_view prefix, absl::Time now, Rng& rng);

// "img_" + 32 hex digits → the dashed UUID; "" where `id` has not that form.
std::string UuidOf(std::string_view id);

// A dashed UUID or 32 hex digits (any case) → `prefix` + 32 hex digits; "" where it is neither.
std::string IdFromUuid(std::string_view prefix, std::string_view uuid);

}  // namespace bunker
