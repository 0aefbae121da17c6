// What the agent's files take of its disk, and how much they may.
//
// Thread-safe: free functions. Blocking: they walk the state folder.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace bunker::agent {

struct DiskUsage {
  // What the agent has and could still take: its own files and what the file system has free, or
  // the operator's cap. Shrinks as others fill the disk.
  uint64_t capacity_bytes = 0;
  uint64_t used_bytes = 0;   // allocated by all files below the state folder
  uint64_t cache_bytes = 0;  // of that, images/ and blobs/
  uint64_t free_bytes() const {
    return capacity_bytes > used_bytes ? capacity_bytes - used_bytes : 0;
  }
};

// `cap_bytes` 0: none.
absl::StatusOr<DiskUsage> MeasureDisk(const std::string& state_dir, uint64_t cap_bytes);

}  // namespace bunker::agent
