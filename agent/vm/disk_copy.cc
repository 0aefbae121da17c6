#include "agent/vm/disk_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {
namespace {

absl::Status CopyRange(int from, int to, off_t at, off_t end) {
  off_t in = at, out = at;
  while (in < end) {
    const ssize_t count =
        copy_file_range(from, &in, to, &out, static_cast<size_t>(end - in), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return ErrnoError(count == 0 ? EIO : errno, "copy");
  }
  return absl::OkStatus();
}

absl::Status CopyData(int from, int to, off_t bytes) {
  if (ioctl(to, FICLONE, from) == 0) return absl::OkStatus();
  for (off_t at = 0; at < bytes;) {
    const off_t data = lseek(from, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data < 0) return ErrnoError(errno, "look for data");
    const off_t hole = lseek(from, data, SEEK_HOLE);
    if (hole < 0) return ErrnoError(errno, "look for data");
    RETURN_IF_ERROR(CopyRange(from, to, data, hole));
    at = hole;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CopyRwDisk(const std::string& source, const std::string& path, uint64_t disk_mb,
                        uid_t uid) {
  const UniqueFd from(open(source.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info{};
  if (!from || fstat(from.get(), &info) != 0) return ErrnoError(errno, source);
  const off_t bytes = static_cast<off_t>(disk_mb) << 20;
  if (bytes < info.st_size) {
    return absl::InvalidArgumentError(absl::StrCat("a copy of ", source, " needs ",
                                                   info.st_size >> 20, " MiB, not ", disk_mb));
  }
  const UniqueFd to(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!to) return ErrnoError(errno, absl::StrCat("create ", path));
  absl::Status status = CopyData(from.get(), to.get(), info.st_size);
  if (status.ok() && (ftruncate(to.get(), bytes) != 0 || fchown(to.get(), uid, uid) != 0)) {
    status = ErrnoError(errno, "set size and owner");
  }
  if (!status.ok()) unlink(path.c_str());
  return Annotate(status, absl::StrCat("copy the disk to ", path));
}

}  // namespace bunker::agent
