// Copies of private disks.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace bunker::agent {

// Makes `path` a copy of the disk `source`, `disk_mb` MiB long (at least as long as the source),
// owned by `uid` and its group, mode 0600. Holes stay holes, and blocks are shared where the file
// system can. kAlreadyExists where `path` is there; after another error nothing is. Not synced.
// Thread-safe. Blocks for milliseconds: it copies what the disk holds.
absl::Status CopyRwDisk(const std::string& source, const std::string& path, uint64_t disk_mb,
                        uid_t uid);

}  // namespace bunker::agent
