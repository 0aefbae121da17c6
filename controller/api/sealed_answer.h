// Stored answers that hold a secret: sealed with what only the one who asked has.
//
// A repeat of a mint (same Idempotency-Key) gets the first answer again, the new key in it. What
// is stored of it can be opened with the API key that the first request was signed with and not
// otherwise; of that one the store has nothing but a hash.
//
// Thread-safe: free functions without state.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace bunker::controller {

// AES-256-GCM under a key derived from `secret`; `context` is bound to it.
std::string SealAnswer(std::string_view secret, std::string_view context, std::string_view answer);

// kPermissionDenied where it was sealed with another secret or context.
absl::StatusOr<std::string> OpenAnswer(std::string_view secret, std::string_view context,
                                       std::string_view sealed);

}  // namespace bunker::controller
