// A machine-readable reason on an absl::Status: one code of the tenant API's error table
// (`VALIDATION_ERROR`, `LAYER_CORRUPT`, …). It survives Annotate() and StatusOr, and is what
// clients branch on; the message is for people and names the remedy.
//
// Thread-safe: free functions without state.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace bunker {

// An error with `reason` attached. REQUIRES: `code` is not kOk.
absl::Status ReasonError(absl::StatusCode code, std::string_view reason, std::string_view message);

// The reason attached to `status`, or "" where none is.
std::string ReasonOf(const absl::Status& status);

// The same error with "`context`: " before its message; code and payloads stay. OK stays OK.
absl::Status Annotate(const absl::Status& status, std::string_view context);

// The same error with `reason` set (replacing any).
absl::Status WithReason(absl::Status status, std::string_view reason);

// An error from errno: "`what`: <strerror>". ENOSPC and EDQUOT carry the reason DISK_FULL.
absl::Status ErrnoError(int error_number, std::string_view what);

}  // namespace bunker
