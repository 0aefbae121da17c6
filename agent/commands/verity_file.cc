#include "agent/commands/verity_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "agent/bake/data_layout.h"
#include "agent/bake/verity_tree.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {
namespace {

constexpr size_t kPieceBytes = 1 << 20;

// On disk, for a sparse file of a few KiB can have a tree of gigabytes; gone with its descriptor.
absl::StatusOr<UniqueFd> TemporaryFile() {
  const char* folder = std::getenv("TMPDIR");
  if (folder == nullptr || *folder == '\0') folder = "/var/tmp";
  UniqueFd fd(::open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!fd) return ErrnoError(errno, std::string("making a temporary file in ") + folder);
  return fd;
}

absl::Status ReadError() {
  return WithReason(ErrnoError(errno, "reading it"), "SOURCE_NOT_READABLE");
}

// Up to `size` bytes, less only at the end of the file; what is missing in the last block is zeros.
absl::StatusOr<size_t> ReadBlocks(int fd, uint64_t offset, char* to, size_t size) {
  size_t done = 0;
  while (done < size) {
    const ssize_t count = ::pread(fd, to + done, size - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ReadError();
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  const size_t whole = (done + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  std::memset(to + done, 0, whole - done);
  return whole;
}

absl::Status HashData(int fd, uint64_t size_bytes, VerityTree* tree) {
  std::vector<char> piece(kPieceBytes);
  const auto end = static_cast<off_t>(size_bytes);
  for (off_t at = 0; at < end;) {
    off_t data = ::lseek(fd, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data < 0) return ReadError();
    data -= data % kBlockBytes;
    const off_t hole = std::max(::lseek(fd, data, SEEK_HOLE), data + 1);
    for (; data < std::min(hole, end);) {
      const auto wanted = std::min<uint64_t>(kPieceBytes, static_cast<uint64_t>(hole - data));
      const size_t blocks = (wanted + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
      ASSIGN_OR_RETURN(const size_t got,
                       ReadBlocks(fd, static_cast<uint64_t>(data), piece.data(), blocks));
      if (got == 0) return absl::OkStatus();
      RETURN_IF_ERROR(tree->Set(static_cast<uint64_t>(data) / kBlockBytes, {piece.data(), got}));
      data += static_cast<off_t>(got);
    }
    at = std::max(hole, data);
  }
  return absl::OkStatus();
}

// Of the whole tree, all levels.
uint64_t TreeBytes(uint64_t size_bytes) {
  constexpr uint64_t kHashesPerPage = kBlockBytes / 32;
  uint64_t pages = 0;
  for (uint64_t below = BlocksFor(size_bytes); below > 1;) {
    below = (below + kHashesPerPage - 1) / kHashesPerPage;
    pages += below;
  }
  return pages * kBlockBytes;
}

absl::StatusOr<bool> SameBytes(int one_fd, int other_fd, uint64_t size_bytes) {
  std::vector<char> one(kPieceBytes), other(kPieceBytes);
  for (uint64_t at = 0; at < size_bytes;) {
    ASSIGN_OR_RETURN(const size_t got, ReadBlocks(one_fd, at, one.data(), kPieceBytes));
    ASSIGN_OR_RETURN(const size_t there, ReadBlocks(other_fd, at, other.data(), kPieceBytes));
    if (got == 0 || got != there || std::memcmp(one.data(), other.data(), got) != 0) return false;
    at += got;
  }
  return true;
}

absl::StatusOr<bool> SameTree(const VerityTree& tree, uint64_t size_bytes, int tree_fd) {
  const uint64_t tree_bytes = TreeBytes(size_bytes);
  struct stat info;
  if (::fstat(tree_fd, &info) != 0) return ReadError();
  // First, so that no tree is written that is larger than the file to compare it with.
  if (static_cast<uint64_t>(info.st_size) != tree_bytes) return false;
  ASSIGN_OR_RETURN(const UniqueFd ours, TemporaryFile());
  RETURN_IF_ERROR(tree.WriteTo(ours.get()));
  return SameBytes(ours.get(), tree_fd, tree_bytes);
}

}  // namespace

absl::StatusOr<VerityVerdict> CheckVerity(int fd, uint64_t size_bytes, int tree_fd) {
  ASSIGN_OR_RETURN(const UniqueFd held, TemporaryFile());
  VerityTree tree(held.get(), size_bytes);
  RETURN_IF_ERROR(HashData(fd, size_bytes, &tree));
  VerityVerdict verdict;
  ASSIGN_OR_RETURN(verdict.digest, tree.Finish(size_bytes));
  if (tree_fd >= 0) {
    verdict.tree_checked = true;
    ASSIGN_OR_RETURN(verdict.tree_matches, SameTree(tree, size_bytes, tree_fd));
  }
  return verdict;
}

}  // namespace bunker::agent
