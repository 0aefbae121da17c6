// The digests of a tarball: of the file as it lies there, and of the tar inside its compression.
// Thread-safe: free functions.
#pragma once

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

// Reads the range once. Errors: those of DetectCompression() and DecodeRange().
absl::StatusOr<TarDigests> DigestTar(const FileRange& range, const StopFn& stop);

// The same, but as soon as a member of the compressed tar has a name that image archives have
// ("manifest.json", "index.json"), reading ends and `*maybe_image` is true; the digests are then
// empty. Members are found by their headers alone, so that the answer is a guess to look into.
absl::StatusOr<TarDigests> DigestUnlessImage(const FileRange& range, const StopFn& stop,
                                             bool* maybe_image);

}  // namespace bunker::agent
