// Internal to agent/pull: what compression a file has, and its content without it.
// Thread-safe: free functions.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/pull/backoff.h"
#include "agent/pull/file_tree.h"
#include "common/oci/manifest.h"

namespace bunker::agent {

// Takes bytes; an error ends the reading and is what the reader returns.
using PieceFn = std::function<absl::Status(std::string_view)>;

// What the first bytes of a file say (512 are enough). LAYER_UNSUPPORTED for compressions that are
// not taken (xz, bzip2, lz4) and for what is no tar at all.
absl::StatusOr<oci::Compression> DetectCompression(std::string_view head);

// Whether `block` starts with a tar header of a right checksum, or an empty archive's zeros.
bool IsTarHeader(std::string_view block);

// Reads the range once, gives `on_input` what is in the file and `on_output` what that
// decompresses to. LAYER_CORRUPT: damaged, cut, or followed by something else; LAYER_UNSUPPORTED:
// it unpacks to more than 200 times its size (beyond 64 MiB), or a zstd window above 128 MiB.
absl::Status DecodeRange(const FileRange& range, oci::Compression compression, const StopFn& stop,
                         const PieceFn& on_input, const PieceFn& on_output);

}  // namespace bunker::agent
