// The other end of the admin socket: what `bunker-controller join-token` calls.
//
// Thread-safe: free functions without state. Blocking.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace bunker::controller {

struct JoinTokenGrant {
  std::string token;
  std::string worker_name;
  absl::Time expires_at;
};

// Asks the controller that serves `socket_path` for a single-use token. `ttl_s` 0: ten minutes.
// UNAVAILABLE, with the remedy, where no controller runs or this user may not ask it.
absl::StatusOr<JoinTokenGrant> CreateJoinToken(const std::string& socket_path,
                                               const std::string& worker_name, uint32_t ttl_s,
                                               const std::map<std::string, std::string>& labels);

}  // namespace bunker::controller
