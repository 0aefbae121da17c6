// Turns a list of OCI layer blobs into one ext4 file, in a confined child process.
//
// The bytes of the file depend on the recipe alone: the layers' diff ids in order and the version
// of the writer. Not on the blobs' compression, the size cap, the clock, the time zone, the umask.
//
// Thread-safe: Bake() may run on several threads at once, each with its own options. Blocking.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/bake/bake_types.h"
#include "common/base/cancel.h"

namespace bunker::agent {

// Bakes `options.layers` into `options.out_path`. `progress` runs on the calling thread, at most
// about ten times a second. On success the file is complete, synced, 0444, and owned by the
// caller; on any failure neither it nor the tree file is left.
//
// Errors (the reason on the status is the image row's error code):
//   LAYER_UNSUPPORTED, LAYER_CORRUPT, DIGEST_MISMATCH, SIZE_CAP_EXCEEDED (the message says how many
//   MiB the image needs), DISK_FULL, OUT_OF_MEMORY, SOURCE_NOT_READABLE, CANCELLED, INTERNAL.
absl::StatusOr<BakeSummary> Bake(const BakeOptions& options, CancelToken& cancel,
                                 const std::function<void(const BakeProgress&)>& progress);

// The first argument with which Bake() executes its own binary again. A binary that calls Bake()
// hands over to BakeChildMain() at the top of main() when it sees it as argv[1].
inline constexpr char kBakeChildArgument[] = "bake-child";

// The child's whole life; returns its exit code. Call it before threads, flags or signals are set
// up. It expects the descriptors that Bake() passes and does nothing useful without them.
int BakeChildMain();

}  // namespace bunker::agent
