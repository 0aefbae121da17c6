// The fs-verity digest of a file that is there, and whether a tree kept beside it is its tree.
//
// Thread-safe: free functions.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace bunker::agent {

struct VerityVerdict {
  std::string digest;         // "fsverity-sha256:<hex>"
  bool tree_checked = false;  // there was a tree to compare with
  bool tree_matches = false;
};

// Reads all data of `fd`, holes left out. `tree_fd` may be -1. Errors: SOURCE_NOT_READABLE.
absl::StatusOr<VerityVerdict> CheckVerity(int fd, uint64_t size_bytes, int tree_fd);

}  // namespace bunker::agent
