// Unix stream sockets with a path in a VM's folder.
// Thread-safe: free functions without state.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {

// kInvalidArgument, with the remedy, where `path` does not fit the system's 107 bytes.
absl::Status CheckSocketPath(const std::string& path);

// Binds and listens; the socket is root's alone (0600), closed on exec. kAlreadyExists where
// something has that name already.
absl::StatusOr<UniqueFd> ListenUnix(const std::string& path);

// Connects within `timeout`: kUnavailable where nobody listens, kNotFound where the path is gone.
// The socket is in blocking mode and closed on exec.
absl::StatusOr<UniqueFd> ConnectUnix(const std::string& path, absl::Duration timeout);

}  // namespace bunker::agent
