// Internal to agent/pull: named files of an image on disk, in a folder or inside a tar archive.
// Thread-safe: const after construction.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {

// Bytes of an open file.
struct FileRange {
  std::shared_ptr<const UniqueFd> fd;
  uint64_t offset = 0;
  uint64_t size_bytes = 0;
  bool whole_file = false;  // the range is all there is, so the file can be handed on by its path
};

class FileTree {
 public:
  virtual ~FileTree() = default;
  // SOURCE_NOT_READABLE; kNotFound where there is no such file.
  virtual absl::StatusOr<FileRange> Open(const std::string& name) const = 0;
};

// A folder; names are resolved beneath it.
std::unique_ptr<FileTree> MakeFolderTree(UniqueFd folder);

// The whole range as a string; LAYER_UNSUPPORTED where it is larger than `max_bytes`.
absl::StatusOr<std::string> ReadRange(const FileRange& range, size_t max_bytes);

// Feeds the range from `from` on to `sink` in pieces of at most 1 MiB.
absl::Status ForEachPiece(const FileRange& range, uint64_t from, const std::function<bool()>& stop,
                          const std::function<absl::Status(std::string_view)>& sink);

}  // namespace bunker::agent
