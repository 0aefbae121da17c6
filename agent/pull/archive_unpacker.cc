#include "agent/pull/archive_unpacker.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string_view>
#include <utility>

#include "agent/pull/tar_decoder.h"
#include "common/base/files.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {
constexpr size_t kHeadBytes = 512;

absl::StatusOr<UniqueFd> NamelessFile(const std::string& folder) {
  UniqueFd fd(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd) return fd;
  // File systems without O_TMPFILE: a name for a moment.
  std::string path = folder + "/unpack-XXXXXX";
  fd.reset(::mkostemp(path.data(), O_CLOEXEC));
  if (!fd) return ErrnoError(errno, "create a file in " + folder);
  ::unlink(path.c_str());
  return fd;
}
}  // namespace

absl::StatusOr<FileRange> UnpackArchive(const FileRange& range, const std::string& scratch_dir,
                                        uint64_t max_bytes, const StopFn& stop) {
  if (scratch_dir.empty()) {
    return ReasonError(absl::StatusCode::kUnimplemented, "LAYER_UNSUPPORTED",
                       "the file is a compressed image archive: decompress it first (gunzip, "
                       "unzstd) and give the archive itself");
  }
  FileRange head = range;
  head.size_bytes = std::min<uint64_t>(range.size_bytes, kHeadBytes);
  ASSIGN_OR_RETURN(const std::string start, ReadRange(head, kHeadBytes));
  ASSIGN_OR_RETURN(const oci::Compression compression, DetectCompression(start));
  ASSIGN_OR_RETURN(UniqueFd fd, NamelessFile(scratch_dir));
  uint64_t bytes = 0;
  const auto write = [&](std::string_view piece) -> absl::Status {
    bytes += piece.size();
    if (bytes > max_bytes) {
      return ReasonError(absl::StatusCode::kUnimplemented, "LAYER_UNSUPPORTED",
                         "the compressed image archive unpacks to more than " +
                             std::to_string(max_bytes >> 20) +
                             " MiB: unpack it, and give the archive or the layout itself");
    }
    const absl::Status written = WriteAll(fd.get(), piece);
    return written.ok() ? written
                        : Annotate(written,
                                   "unpacking the image archive (free space in the "
                                   "agent's state folder)");
  };
  RETURN_IF_ERROR(DecodeRange(range, compression, stop, nullptr, write));
  return FileRange{.fd = std::make_shared<const UniqueFd>(std::move(fd)),
                   .offset = 0,
                   .size_bytes = bytes,
                   .whole_file = false};
}

}  // namespace bunker::agent
