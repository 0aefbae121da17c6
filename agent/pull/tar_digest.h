// The digests of a tarball: of the file as it lies there, and of the tar inside its compression.
// Thread-safe: free functions.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "agent/pull/backoff.h"
#include "agent/pull/file_tree.h"
#include "common/oci/digest.h"
#include "common/oci/manifest.h"

namespace bunker::agent {

struct TarDigests {
  oci::Compression compression = oci::Compression::kNone;
  oci::Digest blob;     // of the bytes in the file
  oci::Digest diff_id;  // of the tar stream
};

// What the first bytes of a file say (512 are enough). LAYER_UNSUPPORTED for compressions that are
// not taken (xz, bzip2, lz4) and for what is no tar at all.
absl::StatusOr<oci::Compression> DetectCompression(std::string_view head);

// Reads the range once. LAYER_CORRUPT: damaged, cut, or followed by something else;
// LAYER_UNSUPPORTED: it unpacks to more than 200 times its size (beyond 64 MiB), or a zstd window
// above 128 MiB.
absl::StatusOr<TarDigests> DigestTar(const FileRange& range, const StopFn& stop);

}  // namespace bunker::agent
