#include "agent/vm/unix_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr size_t kMaxPathBytes = sizeof(sockaddr_un::sun_path) - 1;
// One client is served at a time; more than a few waiting are a mistake.
constexpr int kBacklog = 4;

sockaddr_un AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, path.data(), path.size());
  return address;
}

absl::StatusOr<UniqueFd> NewSocket() {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return ErrnoError(errno, "socket");
  return fd;
}

absl::Status SetSendTimeout(int fd, absl::Duration timeout) {
  const timeval value = absl::ToTimeval(timeout);
  if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &value, sizeof(value)) != 0) {
    return ErrnoError(errno, "SO_SNDTIMEO");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSocketPath(const std::string& path) {
  if (path.size() <= kMaxPathBytes && path.find('\0') == std::string::npos) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the socket path ", path, " has ", path.size(), " bytes, the system takes ",
                   kMaxPathBytes, ": set a shorter state_dir in the agent's config"));
}

absl::StatusOr<UniqueFd> ListenUnix(const std::string& path) {
  RETURN_IF_ERROR(CheckSocketPath(path));
  ASSIGN_OR_RETURN(UniqueFd fd, NewSocket());
  // Mode before bind: the file never exists with a wider one.
  if (fchmod(fd.get(), 0600) != 0) return ErrnoError(errno, absl::StrCat("chmod ", path));
  const sockaddr_un address = AddressOf(path);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    if (errno == EADDRINUSE) {
      return absl::AlreadyExistsError(absl::StrCat(path, " is there already"));
    }
    return ErrnoError(errno, absl::StrCat("bind ", path));
  }
  if (listen(fd.get(), kBacklog) != 0) return ErrnoError(errno, absl::StrCat("listen on ", path));
  return fd;
}

absl::StatusOr<UniqueFd> ConnectUnix(const std::string& path, absl::Duration timeout) {
  RETURN_IF_ERROR(CheckSocketPath(path));
  ASSIGN_OR_RETURN(UniqueFd fd, NewSocket());
  // With a full backlog connect() blocks; this bounds it. A zero would mean "for ever".
  RETURN_IF_ERROR(SetSendTimeout(fd.get(), std::max(timeout, absl::Milliseconds(1))));
  const sockaddr_un address = AddressOf(path);
  int result;
  do {
    result = connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  } while (result != 0 && errno == EINTR);
  if (result != 0) return ErrnoError(errno, absl::StrCat("connect to ", path));
  RETURN_IF_ERROR(SetSendTimeout(fd.get(), absl::ZeroDuration()));
  return fd;
}

}  // namespace bunker::agent
