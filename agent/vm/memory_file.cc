#include "agent/vm/memory_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "absl/strings/str_cat.h"
#include "common/base/reason.h"

namespace bunker::agent {

absl::StatusOr<UniqueFd> MakeMemoryFile(const std::string& name) {
  UniqueFd fd(memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return ErrnoError(errno, "make a file in memory");
  return fd;
}

absl::Status SealMemoryFile(int fd) {
  constexpr int kAll = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  if (fcntl(fd, F_ADD_SEALS, kAll) == 0) return absl::OkStatus();
  if (errno == EBUSY) {
    return absl::FailedPreconditionError("seal a snapshot: someone can still write to it");
  }
  return ErrnoError(errno, "seal a snapshot");
}

absl::StatusOr<UniqueFd> ReopenFile(int fd, int flags) {
  UniqueFd again(open(absl::StrCat("/proc/self/fd/", fd).c_str(), flags | O_CLOEXEC));
  if (!again) return ErrnoError(errno, "open a file again");
  return again;
}

}  // namespace bunker::agent
