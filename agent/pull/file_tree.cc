#include "agent/pull/file_tree.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent/pull/local_folder.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {
constexpr size_t kPieceBytes = 1u << 20;

class FolderTree final : public FileTree {
 public:
  explicit FolderTree(UniqueFd folder) : folder_(std::move(folder)) {}

  absl::StatusOr<FileRange> Open(const std::string& name) const override {
    ASSIGN_OR_RETURN(OpenedFile opened, OpenBeneath(folder_.get(), name));
    if (opened.is_folder) {
      return ReasonError(absl::StatusCode::kNotFound, "SOURCE_NOT_READABLE",
                         "\"" + name + "\" is a folder where a file is expected");
    }
    return FileRange{.fd = std::make_shared<const UniqueFd>(std::move(opened.fd)),
                     .offset = 0,
                     .size_bytes = opened.size_bytes,
                     .whole_file = true};
  }

 private:
  const UniqueFd folder_;
};
}  // namespace

std::unique_ptr<FileTree> MakeFolderTree(UniqueFd folder) {
  return std::make_unique<FolderTree>(std::move(folder));
}

absl::Status ForEachPiece(const FileRange& range, uint64_t from, const std::function<bool()>& stop,
                          const std::function<absl::Status(std::string_view)>& sink) {
  std::string buffer(std::min<uint64_t>(kPieceBytes, range.size_bytes + 1), '\0');
  for (uint64_t at = from; at < range.size_bytes;) {
    if (stop && stop()) {
      return ReasonError(absl::StatusCode::kCancelled, "CANCELLED",
                         "the read was cancelled because its result is no longer wanted");
    }
    const size_t want = std::min<uint64_t>(buffer.size(), range.size_bytes - at);
    const ssize_t n =
        ::pread(range.fd->get(), buffer.data(), want, static_cast<off_t>(range.offset + at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return WithReason(ErrnoError(errno, "read the source"), "SOURCE_NOT_READABLE");
    if (n == 0) {
      return ReasonError(absl::StatusCode::kDataLoss, "LAYER_CORRUPT",
                         "the source ends " + std::to_string(range.size_bytes - at) +
                             " bytes too early: copy it again");
    }
    RETURN_IF_ERROR(sink({buffer.data(), static_cast<size_t>(n)}));
    at += static_cast<uint64_t>(n);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadRange(const FileRange& range, size_t max_bytes) {
  if (range.size_bytes > max_bytes) {
    return ReasonError(
        absl::StatusCode::kUnimplemented, "LAYER_UNSUPPORTED",
        "a document of the source is larger than " + std::to_string(max_bytes) + " bytes");
  }
  std::string content;
  RETURN_IF_ERROR(ForEachPiece(range, 0, nullptr, [&](std::string_view piece) {
    content.append(piece);
    return absl::OkStatus();
  }));
  return content;
}

}  // namespace bunker::agent
