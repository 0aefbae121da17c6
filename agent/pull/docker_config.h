// Credentials out of a Docker `config.json` (or the auth.json that other tools write in its form).
//
// Such a file may name programs that fetch credentials. They are never run: a file that names one
// is refused, because what it says would then be only half of what the operator means.
//
// Thread-safe: a free function.
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/pull/pull_types.h"

namespace bunker::agent {

inline constexpr size_t kMaxDockerConfigBytes = 1u << 20;

// `origin` names the file in errors, which repeat nothing of its secrets. Keys of `auths` are a
// host (with or without a scheme and a trailing /v1/ or /v2/), or a host and the start of a
// repository's path. kInvalidArgument for anything else, and for credential helpers.
absl::StatusOr<std::vector<RegistryCredential>> ParseDockerConfig(std::string_view text,
                                                                  std::string_view origin);

}  // namespace bunker::agent
