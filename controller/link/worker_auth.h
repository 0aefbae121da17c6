// Whose call it is: the bearer credential of a worker, known here only by its SHA-256.
//
// Thread-safe: free functions without state.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "grpcpp/grpcpp.h"

namespace bunker::controller {

// 256 bits in base62, from the system's generator.
std::string NewCredential();

// The SHA-256 (64 hex digits) of the call's bearer credential. AUTH_TOKEN_MISSING where there is
// none. Looked up by its hash, so comparing takes no secret-dependent time.
absl::StatusOr<std::string> CredentialHashOf(const grpc::CallbackServerContext& context);

}  // namespace bunker::controller
