// What a bake is asked for and what it answers with. Plain values.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace bunker::agent {

enum class Compression { kNone, kGzip, kZstd };

// One layer: a file that holds exactly one compressed tar stream.
struct LayerInput {
  std::string path;
  Compression compression = Compression::kNone;
  std::string blob_digest;  // "sha256:<hex>" of the file; empty: not checked (a local tarball)
  std::string diff_id;      // "sha256:<hex>" of the tar stream; empty: computed, not checked
  uint64_t size_bytes = 0;  // of the file; 0: whatever it is
  int fd = -1;  // in the path's place: open for reading at least as long as the bake runs
};

// Limits that turn a hostile layer into a typed refusal.
struct BakeLimits {
  uint64_t max_members = 1'000'000;  // over all layers
  uint32_t max_ratio = 200;          // decompressed : compressed, once past ratio_free_bytes
  uint64_t ratio_free_bytes = 64ull << 20;
  uint32_t cpu_seconds = 120;
  uint64_t memory_bytes = 4ull << 30;  // address space of the child
  absl::Duration wall_time = absl::Minutes(10);
};

class LayerFeed;

struct BakeOptions {
  std::vector<LayerInput> layers;  // bottom first, 1..256
  // Where blobs are still being pulled: how far they are. All layers then need size and digest.
  const LayerFeed* feed = nullptr;
  uint32_t size_mib = 0;           // cap of the file's apparent size
  std::string out_path;            // created; must not exist
  std::string tree_path;           // where the fs-verity tree goes; empty: it is not kept
  BakeLimits limits;
  uid_t child_uid = 64010;  // never 0
  gid_t child_gid = 64010;
};

struct BakeProgress {
  uint64_t bytes_done = 0;  // compressed input consumed
  uint64_t bytes_total = 0;
};

struct BakeStage {
  std::string name;        // "inflate", "blob_hash", "diff_hash", "merge", "write", "metadata"
  double cpu_seconds = 0;  // of the threads that did it
};

struct BakeSummary {
  std::string recipe_digest;          // "sha256:<hex>"
  std::string rootfs_digest;          // "fsverity-sha256:<hex>"
  std::vector<std::string> diff_ids;  // as given or computed, bottom first
  uint64_t apparent_bytes = 0;
  uint64_t allocated_bytes = 0;
  uint64_t entries = 0;  // paths in the image
  uint64_t dropped_xattr_count = 0;
  std::vector<std::string> dropped_xattrs;  // "path: name", the first 100
  uint64_t compressed_bytes = 0;
  uint64_t uncompressed_bytes = 0;
  uint64_t reread_layers = 0;  // layers read twice, for data that only looked hidden
  std::vector<BakeStage> stages;
  double wall_seconds = 0;
  double cpu_seconds = 0;
  uint64_t peak_rss_bytes = 0;
};

// The version of everything that decides the file's bytes beside the layers. Raise it with any
// change to layout or metadata: caches are keyed by it through the recipe digest.
inline constexpr int kBakeWriterVersion = 2;

// The file system's label is this and the writer's version: what a file says of its origin.
inline constexpr char kImageLabelPrefix[] = "bunker-";

// "sha256:<hex>" over the diff ids in order, the layout's constants and the writer's version: the
// key of the image cache.
std::string RecipeDigest(const std::vector<std::string>& diff_ids);

}  // namespace bunker::agent
