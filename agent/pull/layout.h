// Internal to agent/pull: reading an OCI layout or a docker save archive out of a FileTree.
// Thread-safe: free functions.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/pull/backoff.h"
#include "agent/pull/file_tree.h"
#include "agent/pull/pull_types.h"

namespace bunker::agent {

// An image whose layers are files of a tree, in the order of image.layers.
struct LocalImage {
  ResolvedImage image;
  std::vector<FileRange> layers;
};

// An OCI layout: index.json names one image, or one per platform, or `name` says
// which. Documents are verified; layers
// are opened and have their declared sizes, their digests are left to whoever reads them.
absl::StatusOr<LocalImage> ReadLayout(const FileTree& tree, const std::string& arch,
                                      const oci::Digest& pinned, const std::string& subject,
                                      const std::string& name = "");

// What `docker save` wrote before it wrote layouts (docker_archive.cc). Its layers have no digests
// of their own beside the diff ids; compressed ones are read once to learn theirs.
absl::StatusOr<LocalImage> ReadDockerArchive(const FileTree& tree, const std::string& arch,
                                             const oci::Digest& pinned, const StopFn& stop);

}  // namespace bunker::agent
