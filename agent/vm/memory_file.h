// Files without a name, in memory: what a VM's snapshot is kept in.
// Thread-safe: free functions without state.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {

// An empty one, closed on exec. `name` is for people reading /proc.
absl::StatusOr<UniqueFd> MakeMemoryFile(const std::string& name);

// Nobody can change its bytes or its size any more, whatever right they hold: a VM that maps it
// privately has its own copy of what it writes. kFailedPrecondition while someone maps it shared
// and writable.
absl::Status SealMemoryFile(int fd);

// The same file opened anew with `flags`, with an offset of its own. Closed on exec.
absl::StatusOr<UniqueFd> ReopenFile(int fd, int flags);

}  // namespace bunker::agent
