#include "agent/pull/local_folder.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <vector>

#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {
constexpr size_t kMaxPathBytes = 4096;

absl::Status NotReadable(absl::StatusCode code, const std::string& message) {
  return ReasonError(code, "SOURCE_NOT_READABLE", message);
}

absl::Status Refused(const std::string& message) {
  return NotReadable(absl::StatusCode::kPermissionDenied, message);
}

// Non-empty components; "." is left out. An error where one is "..".
absl::StatusOr<std::vector<std::string>> Components(const std::string& path) {
  std::vector<std::string> parts;
  for (size_t start = 0; start <= path.size();) {
    const size_t slash = std::min(path.find('/', start), path.size());
    const std::string part = path.substr(start, slash - start);
    start = slash + 1;
    if (part.empty() || part == ".") continue;
    if (part == "..") return Refused("the tar path holds \"..\": write it without");
    parts.push_back(part);
  }
  return parts;
}

std::string Joined(const std::vector<std::string>& parts, size_t from) {
  std::string joined;
  for (size_t i = from; i < parts.size(); ++i) joined += (i > from ? "/" : "") + parts[i];
  return joined.empty() ? "." : joined;
}

// For kernels without openat2: one component after the other, no symlink at all.
int WalkBeneath(int folder_fd, const std::string& relative) {
  UniqueFd current(::fcntl(folder_fd, F_DUPFD_CLOEXEC, 0));
  for (size_t start = 0; current && start <= relative.size();) {
    const size_t slash = std::min(relative.find('/', start), relative.size());
    const std::string part = relative.substr(start, slash - start);
    start = slash + 1;
    if (part == "..") {
      errno = EXDEV;
      return -1;
    }
    current.reset(::openat(current.get(), part.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat info;
    if (current && ::fstat(current.get(), &info) == 0 && S_ISLNK(info.st_mode)) {
      errno = EXDEV;
      return -1;
    }
  }
  return current.release();
}

// O_PATH: nothing is touched before its type is known.
int LocateBeneath(int folder_fd, const std::string& relative) {
  open_how how;
  std::memset(&how, 0, sizeof how);
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  const long fd = ::syscall(SYS_openat2, folder_fd, relative.c_str(), &how, sizeof how);
  if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return static_cast<int>(fd);
  return WalkBeneath(folder_fd, relative);
}

bool IsSafeName(const std::string& name) {
  return !name.empty() && name.size() <= 128 &&
         std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-'; });
}
}  // namespace

std::string PathOfFd(int fd) {
  return "/proc/self/fd/" + std::to_string(fd);
}

absl::StatusOr<OpenedFile> OpenBeneath(int folder_fd, const std::string& relative) {
  const UniqueFd located(LocateBeneath(folder_fd, relative));
  if (!located) {
    const int error = errno;
    if (error == EXDEV || error == ELOOP) {
      return Refused("\"" + relative +
                     "\" leads out of its folder (a symlink?): put the file "
                     "itself there");
    }
    const auto code = error == ENOENT || error == ENOTDIR ? absl::StatusCode::kNotFound
                                                          : absl::StatusCode::kPermissionDenied;
    return NotReadable(code, "\"" + relative +
                                 "\": " + std::string(ErrnoError(error, "open").message()) +
                                 "; check that it is there and readable on this worker");
  }
  struct stat info;
  if (::fstat(located.get(), &info) != 0) return ErrnoError(errno, "stat " + relative);
  if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode))
    return Refused("\"" + relative + "\" is neither a file nor a folder");
  OpenedFile opened;
  opened.is_folder = S_ISDIR(info.st_mode);
  opened.size_bytes = opened.is_folder ? 0 : static_cast<uint64_t>(info.st_size);
  opened.fd.reset(::open(PathOfFd(located.get()).c_str(), O_RDONLY | O_CLOEXEC));
  if (!opened.fd)
    return Refused("\"" + relative + "\": " + std::string(ErrnoError(errno, "open").message()) +
                   "; make it readable for the agent");
  return opened;
}

absl::StatusOr<OpenedFile> OpenInTarRoot(const std::string& tar_root, const std::string& scope,
                                         const std::string& tenant_id, const std::string& path) {
  if (tar_root.empty()) {
    return Refused(
        "tar sources are off on this worker: set tar_root in the agent's configuration, "
        "or register an image reference");
  }
  if (path.empty() || path.size() > kMaxPathBytes || path.find('\0') != std::string::npos)
    return Refused("the tar path is empty or longer than 4096 bytes");
  // Only a platform image sees the whole folder; any other its own tenant's part of it.
  const bool whole = scope == "platform";
  if (!whole && !IsSafeName(tenant_id)) return Refused("a tar source of a tenant needs its id");
  ASSIGN_OR_RETURN(std::vector<std::string> base, Components(tar_root));
  if (!whole) base.push_back(tenant_id);
  ASSIGN_OR_RETURN(const std::vector<std::string> parts, Components(path));
  size_t from = 0;
  if (path.front() == '/') {
    const bool inside =
        parts.size() >= base.size() && std::equal(base.begin(), base.end(), parts.begin());
    if (!inside) {
      return Refused(
          "the tar path lies outside the folder allowed for it: put the file under "
          "tar_root" +
          std::string(whole ? "" : "/" + tenant_id) + " on the worker");
    }
    from = base.size();
  }
  UniqueFd folder(::open(tar_root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder) {
    return Refused("tar_root of the agent's configuration can't be opened (" +
                   std::string(ErrnoError(errno, "open").message()) + "): create it");
  }
  if (!whole) {
    const int own =
        ::openat(folder.get(), tenant_id.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (own < 0) {
      return NotReadable(absl::StatusCode::kNotFound, "tar_root has no folder " + tenant_id +
                                                          ": create it on the worker and "
                                                          "put the file there");
    }
    folder.reset(own);
  }
  return OpenBeneath(folder.get(), Joined(parts, from));
}

}  // namespace bunker::agent
