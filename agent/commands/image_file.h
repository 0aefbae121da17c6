// What a baked file says about itself: its superblock, group descriptors and inode tables, read
// without any library that would follow what they say. Every number is checked before it is used:
// the file may be damaged, or none of ours at all.
//
// Thread-safe: free functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace bunker::agent {

struct ImageFileFacts {
  std::string label;  // "bunker-<writer version>"
  std::string uuid;   // text form; derived from the recipe
  std::vector<std::string> features;
  uint64_t block_bytes = 0;
  uint64_t blocks = 0;
  uint64_t free_blocks = 0;
  uint64_t inodes = 0;
  uint64_t free_inodes = 0;

  uint64_t apparent_bytes = 0;
  uint64_t allocated_bytes = 0;
  uint64_t hole_bytes = 0;  // as the file system that holds the file tells them
  uint64_t data_extents = 0;

  uint64_t entries = 0;        // paths, hard links counted, the root not
  uint64_t directories = 0;    // the root not counted
  uint64_t regular_files = 0;  // inodes
  uint64_t symlinks = 0;
  uint64_t other_files = 0;    // devices and fifos
  uint64_t content_bytes = 0;  // of regular files
};

// Opens what an operator named: a regular file, not waited for if it is something else.
// SOURCE_NOT_READABLE. The descriptor is the caller's.
absl::StatusOr<int> OpenImageFile(const std::string& path);

// LAYER_CORRUPT where the file is no image that a bake wrote, is cut, or is damaged in what is
// read here; the message says which.
absl::StatusOr<ImageFileFacts> ReadImageFile(int fd);

}  // namespace bunker::agent
