#include "agent/net/guard_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <sstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "agent/net/guard_child.h"
#include "agent/net/namespace.h"
#include "agent/net/ruleset.h"
#include "common/base/files.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "common/proc/deadline.h"
#include "common/proc/process.h"

namespace bunker::agent {
namespace {

constexpr size_t kMaxNoteBytes = 256;
constexpr size_t kMaxReportBytes = 256 * 1024;
constexpr size_t kMaxReportEvents = 256;
constexpr absl::Duration kAskTimeout = absl::Seconds(2);
constexpr absl::Duration kKillTimeout = absl::Seconds(5);
constexpr int kBacklog = 128;

std::string NotePath(const std::string& folder) {
  return folder + "/guard";
}
std::string SocketPath(const std::string& folder) {
  return folder + "/guard.sock";
}

absl::StatusOr<UniqueFd> ListenUnix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return absl::InvalidArgumentError(absl::StrCat(path, " is too long for a socket"));
  path.copy(address.sun_path, path.size());
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return ErrnoError(errno, path);
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd || bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      listen(fd.get(), 8) != 0)
    return ErrnoError(errno, absl::StrCat("listening on ", path));
  return fd;
}

// On the gateway's address, which may not be up yet.
absl::StatusOr<UniqueFd> BindGateway(int type, uint16_t port) {
  UniqueFd fd(socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return ErrnoError(errno, "socket");
  const int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(fd.get(), SOL_IP, IP_FREEBIND, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  inet_pton(AF_INET, kGatewayAddress, &address.sin_addr);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      (type == SOCK_STREAM && listen(fd.get(), kBacklog) != 0))
    return ErrnoError(errno, absl::StrCat("binding the gateway's port ", port));
  return fd;
}

absl::StatusOr<UniqueFd> InMemory(const std::string& bytes) {
  UniqueFd fd(memfd_create("guard", MFD_CLOEXEC));
  if (!fd) return ErrnoError(errno, "memfd_create");
  RETURN_IF_ERROR(WriteAll(fd.get(), bytes));
  if (lseek(fd.get(), 0, SEEK_SET) != 0) return ErrnoError(errno, "lseek");
  return fd;
}

// A session of its own, with the given descriptors as 3, 4, … and nothing else of ours.
absl::StatusOr<pid_t> Spawn(const std::vector<int>& fds) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  if (posix_spawn_file_actions_init(&actions) != 0 || posix_spawnattr_init(&attributes) != 0)
    return absl::ResourceExhaustedError("posix_spawn: out of memory");
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
  posix_spawn_file_actions_adddup2(&actions, 0, 1);
  posix_spawn_file_actions_adddup2(&actions, 0, 2);
  for (size_t i = 0; i < fds.size(); ++i)
    posix_spawn_file_actions_adddup2(&actions, fds[i], static_cast<int>(i) + 3);
  posix_spawn_file_actions_addclosefrom_np(&actions, static_cast<int>(fds.size()) + 3);
  sigset_t all, none;
  sigfillset(&all);
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
  char program[] = "bunker-netguard";
  std::string argument = kNetGuardArgument;
  char* const argv[] = {program, argument.data(), nullptr};
  char* const no_environment[] = {nullptr};
  pid_t pid = 0;
  const int error =
      posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, argv, no_environment);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return ErrnoError(error, "starting the guard");
  return pid;
}

// Moved out of the way of the numbers they are to become.
absl::StatusOr<UniqueFd> Park(UniqueFd fd) {
  UniqueFd parked(fcntl(fd.get(), F_DUPFD_CLOEXEC, 64));
  if (!parked) return ErrnoError(errno, "F_DUPFD");
  return parked;
}

absl::Status WriteNote(const std::string& folder, pid_t pid) {
  ASSIGN_OR_RETURN(const ProcessIdentity identity, ReadIdentity(pid));
  // Whole or not there, but not synced: it is of no use after the host's next boot.
  const std::string part = NotePath(folder) + ".part";
  UniqueFd file(::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) return ErrnoError(errno, part);
  RETURN_IF_ERROR(WriteAll(file.get(), absl::StrCat(identity.pid, " ", identity.start_time_ticks,
                                                    " ", identity.boot_id, "\n")));
  if (::rename(part.c_str(), NotePath(folder).c_str()) != 0) return ErrnoError(errno, part);
  return absl::OkStatus();
}

absl::StatusOr<ProcessIdentity> ReadNote(const std::string& folder) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(NotePath(folder), kMaxNoteBytes));
  std::istringstream in(text);
  ProcessIdentity identity;
  if (!(in >> identity.pid >> identity.start_time_ticks >> identity.boot_id) || identity.pid <= 1)
    return absl::InvalidArgumentError(NotePath(folder) + " is damaged");
  return identity;
}

// A guard that an earlier life of the agent began is not our child, and not ours to reap.
void ReapIfOurs(const ProcessIdentity& identity) {
  const absl::StatusOr<ProcessIdentity> now = ReadIdentity(identity.pid);
  if (now.ok() && *now == identity) waitpid(identity.pid, nullptr, WNOHANG);
}

}  // namespace

absl::Status StartGuard(const std::string& folder, const std::string& name_space,
                        const v1::GuardConfig& config) {
  UniqueFd dns, proxy;
  RETURN_IF_ERROR(InNamespace(name_space, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(dns, BindGateway(SOCK_DGRAM, 53));
    ASSIGN_OR_RETURN(proxy, BindGateway(SOCK_STREAM, kProxyPort));
    return absl::OkStatus();
  }));
  ASSIGN_OR_RETURN(UniqueFd settings, InMemory(config.SerializeAsString()));
  ASSIGN_OR_RETURN(UniqueFd report, ListenUnix(SocketPath(folder)));
  ASSIGN_OR_RETURN(settings, Park(std::move(settings)));
  ASSIGN_OR_RETURN(dns, Park(std::move(dns)));
  ASSIGN_OR_RETURN(proxy, Park(std::move(proxy)));
  ASSIGN_OR_RETURN(report, Park(std::move(report)));
  ASSIGN_OR_RETURN(const pid_t pid, Spawn({settings.get(), dns.get(), proxy.get(), report.get()}));
  const absl::Status noted = WriteNote(folder, pid);
  if (noted.ok()) return noted;
  // One that no note names could never be ended.
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  return noted;
}

bool GuardRuns(const std::string& folder) {
  const absl::StatusOr<ProcessIdentity> identity = ReadNote(folder);
  if (!identity.ok()) return false;
  const absl::StatusOr<ProcessHandle> process = ProcessHandle::Open(*identity);
  if (process.ok() && !process->HasEnded()) return true;
  ReapIfOurs(*identity);
  return false;
}

absl::Status EndGuard(const std::string& folder) {
  const absl::StatusOr<ProcessIdentity> identity = ReadNote(folder);
  if (!identity.ok()) return absl::OkStatus();
  absl::StatusOr<ProcessHandle> process = ProcessHandle::Open(*identity);
  if (process.ok()) RETURN_IF_ERROR(process->Kill(kKillTimeout).status());
  ReapIfOurs(*identity);
  if (unlink(NotePath(folder).c_str()) != 0 && errno != ENOENT)
    return ErrnoError(errno, NotePath(folder));
  return absl::OkStatus();
}

absl::StatusOr<v1::GuardReport> AskGuard(const std::string& folder) {
  const std::string path = SocketPath(folder);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return absl::InvalidArgumentError("too long a path");
  path.copy(address.sun_path, path.size());
  const UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd || connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return ErrnoError(errno, "asking the guard");
  const Deadline deadline(kAskTimeout);
  std::string bytes;
  std::array<char, 16 * 1024> chunk;
  for (;;) {
    pollfd waiting{fd.get(), POLLIN, 0};
    const int ready =
        poll(&waiting, 1, static_cast<int>(absl::ToInt64Milliseconds(deadline.Remaining())));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return absl::DeadlineExceededError("the guard does not answer");
    const ssize_t count = recv(fd.get(), chunk.data(), chunk.size(), 0);
    if (count < 0 && errno == EAGAIN) continue;
    if (count < 0) return ErrnoError(errno, "asking the guard");
    if (count == 0) break;
    bytes.append(chunk.data(), static_cast<size_t>(count));
    if (bytes.size() > kMaxReportBytes)
      return absl::InvalidArgumentError("the guard says too much");
  }
  v1::GuardReport report;
  if (!report.ParseFromString(bytes) ||
      static_cast<size_t>(report.events_size()) > kMaxReportEvents)
    return absl::InvalidArgumentError("the guard's report is damaged");
  return report;
}

}  // namespace bunker::agent
