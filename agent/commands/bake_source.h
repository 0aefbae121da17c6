// What `bunker-agent bake --source` takes: a reference, an OCI layout, or a tar file.
//
// Thread-safe: free functions.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "agent/pull/pull_types.h"

namespace bunker::agent {

struct BakeSource {
  SourceSpec spec;
  std::string tar_root;  // the folder that a file source may read; empty: a registry
};

// `text` is "oci-layout:DIR[:NAME]", "tar:FILE" or a reference. Whoever types a path may read it,
// so its folder becomes the root that reads stay beneath; symlinks on the way there are followed,
// those inside that lead out are not. Errors: kInvalidArgument, SOURCE_NOT_READABLE.
absl::StatusOr<BakeSource> ParseBakeSource(const std::string& text);

}  // namespace bunker::agent
