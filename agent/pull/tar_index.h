// Internal to agent/pull: the members of an uncompressed tar archive, found by reading its headers
// alone. Written for archives that hold an image's documents and layers, not for layers
// themselves: it knows regular files and links, the pax and GNU forms of long names and large
// sizes, and refuses what it does not understand.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "agent/pull/backoff.h"
#include "agent/pull/file_tree.h"

namespace bunker::agent {

class TarIndex final : public FileTree {
 public:
  // LAYER_CORRUPT where a header is damaged or a member ends beyond the file; CANCELLED. An
  // archive of more than `max_members` members is kept to the first so many (it is no image
  // archive, and nobody asks for the rest).
  static absl::StatusOr<std::unique_ptr<TarIndex>> Read(const FileRange& archive,
                                                        const StopFn& stop,
                                                        size_t max_members = 20'000);

  // Names are taken without a leading "./"; links inside the archive are followed (at most 8).
  absl::StatusOr<FileRange> Open(const std::string& name) const override;
  bool Has(const std::string& name) const { return members_.contains(name); }

 private:
  struct Member {
    uint64_t offset = 0;  // of the content, in the archive
    uint64_t size_bytes = 0;
    std::string link;  // the name in the archive that this one stands for; "" for content
  };
  struct Header;
  explicit TarIndex(FileRange archive) : archive_(std::move(archive)) {}
  absl::Status Add(const Header& header, uint64_t content);

  const FileRange archive_;
  std::map<std::string, Member> members_;
};

}  // namespace bunker::agent
