// Internal to agent/pull: an image archive without its compression, so that its members can be
// found and read in any order.
// Thread-safe: a free function.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "agent/pull/backoff.h"
#include "agent/pull/file_tree.h"

namespace bunker::agent {

// Decompresses the whole range into a file in `scratch_dir` that has no name, and so is gone with
// its last user however that ends. LAYER_UNSUPPORTED where it has more than `max_bytes`, naming
// the remedy; DISK_FULL; and the errors of DecodeRange().
absl::StatusOr<FileRange> UnpackArchive(const FileRange& range, const std::string& scratch_dir,
                                        uint64_t max_bytes, const StopFn& stop);

}  // namespace bunker::agent
