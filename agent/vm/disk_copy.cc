#include "agent/vm/disk_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr off_t kPieceBytes = 8 << 20;
constexpr size_t kCompareBytes = 1 << 20;

absl::Status Ask(const CopyGate& gate) {
  return gate ? gate() : absl::OkStatus();
}

absl::Status CopyRange(int from, int to, off_t at, off_t end, const CopyGate& gate) {
  off_t in = at, out = at;
  while (in < end) {
    RETURN_IF_ERROR(Ask(gate));
    const auto piece = static_cast<size_t>(std::min(end - in, kPieceBytes));
    const ssize_t count = copy_file_range(from, &in, to, &out, piece, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return ErrnoError(count == 0 ? EIO : errno, "copy");
  }
  return absl::OkStatus();
}

bool Clone(int from, int to) {
  return ioctl(to, FICLONE, from) == 0;
}

// Calls `on_hole` and `on_data`, each (begin, end), over the whole of the file in order.
template <typename OnHole, typename OnData>
absl::Status ForEachPart(int from, off_t bytes, OnHole on_hole, OnData on_data) {
  for (off_t at = 0; at < bytes;) {
    off_t data = lseek(from, at, SEEK_DATA);
    if (data < 0 && errno != ENXIO) return ErrnoError(errno, "look for data");
    if (data < 0) data = bytes;
    if (data > at) RETURN_IF_ERROR(on_hole(at, data));
    if (data >= bytes) break;
    const off_t hole = lseek(from, data, SEEK_HOLE);
    if (hole < 0) return ErrnoError(errno, "look for data");
    RETURN_IF_ERROR(on_data(data, std::min(hole, bytes)));
    at = hole;
  }
  return absl::OkStatus();
}

absl::Status CopyData(int from, int to, off_t bytes, const CopyGate& gate) {
  if (Clone(from, to)) return absl::OkStatus();
  return ForEachPart(
      from, bytes, [](off_t, off_t) { return absl::OkStatus(); },
      [&](off_t at, off_t end) { return CopyRange(from, to, at, end, gate); });
}

absl::Status ReadPiece(int fd, off_t at, size_t bytes, char* out) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t count = pread(fd, out + done, bytes - done, at + static_cast<off_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return ErrnoError(count == 0 ? EIO : errno, "read");
    done += static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

absl::Status WritePiece(int fd, off_t at, size_t bytes, const char* data) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t count = pwrite(fd, data + done, bytes - done, at + static_cast<off_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoError(errno, "write");
    done += static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

// Writes what differs alone: reading what was just read and written comes from memory.
absl::Status MendRange(int from, int to, off_t at, off_t end, const CopyGate& gate) {
  std::vector<char> wanted(kCompareBytes);
  std::vector<char> there(kCompareBytes);
  for (; at < end; at += static_cast<off_t>(kCompareBytes)) {
    RETURN_IF_ERROR(Ask(gate));
    const size_t piece = std::min(kCompareBytes, static_cast<size_t>(end - at));
    RETURN_IF_ERROR(ReadPiece(from, at, piece, wanted.data()));
    RETURN_IF_ERROR(ReadPiece(to, at, piece, there.data()));
    if (memcmp(wanted.data(), there.data(), piece) == 0) continue;
    RETURN_IF_ERROR(WritePiece(to, at, piece, wanted.data()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::pair<UniqueFd, off_t>> OpenSource(const std::string& source) {
  UniqueFd from(open(source.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info{};
  if (!from || fstat(from.get(), &info) != 0) return ErrnoError(errno, source);
  return std::make_pair(std::move(from), info.st_size);
}

}  // namespace

absl::Status CopyRwDisk(const std::string& source, const std::string& path, uint64_t disk_mb,
                        uid_t uid, const CopyGate& gate) {
  ASSIGN_OR_RETURN(auto opened, OpenSource(source));
  const auto& [from, source_bytes] = opened;
  const off_t bytes = static_cast<off_t>(disk_mb) << 20;
  if (bytes < source_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("a copy of ", source, " needs ",
                                                   source_bytes >> 20, " MiB, not ", disk_mb));
  }
  const UniqueFd to(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!to) return ErrnoError(errno, absl::StrCat("create ", path));
  absl::Status status = CopyData(from.get(), to.get(), source_bytes, gate);
  if (status.ok() && (ftruncate(to.get(), bytes) != 0 || fchown(to.get(), uid, uid) != 0)) {
    status = ErrnoError(errno, "set size and owner");
  }
  if (!status.ok()) unlink(path.c_str());
  return Annotate(status, absl::StrCat("copy the disk to ", path));
}

// ---- a disk that is written to ----------------------------------------------------------------

absl::StatusOr<DiskCopy> DiskCopy::Begin(const std::string& source, const std::string& temporary,
                                         const CopyGate& gate) {
  ASSIGN_OR_RETURN(auto opened, OpenSource(source));
  UniqueFd to(open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!to) return ErrnoError(errno, absl::StrCat("create ", temporary));
  DiskCopy copy(std::move(opened.first), std::move(to), temporary, opened.second);
  if (ftruncate(copy.to_.get(), copy.bytes_) != 0) return ErrnoError(errno, "set the size");
  RETURN_IF_ERROR(Annotate(CopyData(copy.from_.get(), copy.to_.get(), copy.bytes_, gate),
                           absl::StrCat("copy the disk to ", temporary)));
  return copy;
}

DiskCopy::DiskCopy(DiskCopy&& other) noexcept
    : from_(std::move(other.from_)),
      to_(std::move(other.to_)),
      temporary_(std::exchange(other.temporary_, "")),
      bytes_(other.bytes_) {}

DiskCopy::~DiskCopy() {
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

absl::Status DiskCopy::Settle(const CopyGate& gate) {
  if (Clone(from_.get(), to_.get())) return absl::OkStatus();
  const auto punch = [&](off_t at, off_t end) -> absl::Status {
    if (fallocate(to_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, end - at) == 0)
      return absl::OkStatus();
    return ErrnoError(errno, "make a hole");
  };
  return Annotate(
      ForEachPart(from_.get(), bytes_, punch,
                  [&](off_t at, off_t end) {
                    return MendRange(from_.get(), to_.get(), at, end, gate);
                  }),
      absl::StrCat("copy the disk to ", temporary_));
}

absl::StatusOr<uint64_t> DiskCopy::Publish(const std::string& path) {
  struct stat info{};
  if (fsync(to_.get()) != 0 || fstat(to_.get(), &info) != 0)
    return ErrnoError(errno, absl::StrCat("write out ", temporary_));
  if (rename(temporary_.c_str(), path.c_str()) != 0)
    return ErrnoError(errno, absl::StrCat("name ", path));
  temporary_.clear();
  RETURN_IF_ERROR(SyncFolder(path.substr(0, path.rfind('/'))));
  return static_cast<uint64_t>(info.st_blocks) * 512;
}

}  // namespace bunker::agent
