#include "common/proc/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <charconv>
#include <memory>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/proc/deadline.h"

namespace bunker {
namespace {

constexpr size_t kMaxProcFileBytes = 16 * 1024;

// poll(2) on one fd until readable, over EINTR. False where the time is up.
absl::StatusOr<bool> PollReadable(int fd, absl::Duration timeout) {
  const Deadline deadline(timeout);
  while (true) {
    pollfd watched{.fd = fd, .events = POLLIN, .revents = 0};
    const int ready = poll(&watched, 1, deadline.PollTimeoutMs());
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return ErrnoError(errno, "poll on a pidfd");
    if (ready == 0 && deadline.Expired()) return false;
  }
}

// Field 22 of a stat line. The command name (field 2) may hold spaces and parentheses, so
// counting starts behind the LAST ')'.
absl::StatusOr<uint64_t> ParseStartTime(std::string_view stat_line) {
  const size_t end_of_name = stat_line.rfind(')');
  if (end_of_name == std::string_view::npos) return absl::InternalError("stat line without ')'");
  std::string_view rest = stat_line.substr(end_of_name + 1);
  for (int field = 3; field <= 22; ++field) {
    const size_t start = rest.find_first_not_of(' ');
    if (start == std::string_view::npos) return absl::InternalError("stat line too short");
    rest.remove_prefix(start);
    if (field < 22) rest.remove_prefix(std::min(rest.find(' '), rest.size()));
  }
  uint64_t ticks = 0;
  const auto parsed = std::from_chars(rest.data(), rest.data() + rest.size(), ticks);
  if (parsed.ec != std::errc()) return absl::InternalError("stat line with a bad start time");
  return ticks;
}

absl::Status Gone(pid_t pid, absl::string_view why) {
  return absl::NotFoundError(absl::StrCat("process ", pid, " is gone: ", why));
}

}  // namespace

std::string DescribeExit(const ProcessExit& exit) {
  if (!exit.known) return "ended, exit status unknown";
  if (exit.signal == 0) return absl::StrCat("exit code ", exit.code);
  const char* name = sigdescr_np(exit.signal);
  return absl::StrCat("killed by signal ", exit.signal, " (", name ? name : "unknown", ")");
}

const std::string& HostBootId() {
  static const std::string* const boot_id = [] {
    absl::StatusOr<std::string> text = ReadFile("/proc/sys/kernel/random/boot_id", 128);
    std::string value = text.ok() ? *std::move(text) : std::string();
    while (!value.empty() && value.back() == '\n') value.pop_back();
    return new std::string(std::move(value));
  }();
  return *boot_id;
}

absl::StatusOr<ProcessIdentity> ReadIdentity(pid_t pid) {
  if (pid <= 0) return absl::InvalidArgumentError(absl::StrCat("no process has pid ", pid));
  absl::StatusOr<std::string> line =
      ReadFile(absl::StrCat("/proc/", pid, "/stat"), kMaxProcFileBytes);
  if (!line.ok()) return Gone(pid, line.status().message());
  ProcessIdentity identity;
  identity.pid = pid;
  ASSIGN_OR_RETURN(identity.start_time_ticks, ParseStartTime(*line));
  identity.boot_id = HostBootId();
  return identity;
}

absl::StatusOr<std::vector<ProcessIdentity>> FindProcessesByUid(uid_t first, uid_t last) {
  std::unique_ptr<DIR, int (*)(DIR*)> proc(opendir("/proc"), closedir);
  if (!proc) return ErrnoError(errno, "open /proc");
  std::vector<ProcessIdentity> found;
  while (const dirent* entry = readdir(proc.get())) {
    pid_t pid = 0;
    const std::string_view name = entry->d_name;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (parsed.ec != std::errc() || parsed.ptr != name.data() + name.size()) continue;
    absl::StatusOr<std::string> status =
        ReadFile(absl::StrCat("/proc/", pid, "/status"), kMaxProcFileBytes);
    if (!status.ok()) continue;  // ended since the listing
    const size_t at = status->find("\nUid:");
    if (at == std::string::npos) continue;
    const uid_t uid = static_cast<uid_t>(strtoul(status->c_str() + at + 5, nullptr, 10));
    if (uid < first || uid > last) continue;
    absl::StatusOr<ProcessIdentity> identity = ReadIdentity(pid);
    if (identity.ok()) found.push_back(*std::move(identity));
  }
  return found;
}

absl::StatusOr<ProcessHandle> ProcessHandle::ForChild(UniqueFd pidfd, pid_t pid) {
  ProcessHandle handle;
  // A child can't be reaped but by us, so the number is its own until Wait().
  ASSIGN_OR_RETURN(handle.identity_, ReadIdentity(pid));
  handle.pidfd_ = std::move(pidfd);
  handle.is_child_ = true;
  return handle;
}

absl::StatusOr<ProcessHandle> ProcessHandle::Open(const ProcessIdentity& identity) {
  if (identity.boot_id != HostBootId()) return Gone(identity.pid, "the host has rebooted since");
  if (identity.pid <= 0) return Gone(identity.pid, "not a pid");
  ProcessHandle handle;
  handle.pidfd_ = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, identity.pid, 0)));
  if (!handle.pidfd_) {
    if (errno == ESRCH || errno == EINVAL) return Gone(identity.pid, "no such process");
    return ErrnoError(errno, "pidfd_open");
  }
  // Checked after the open: had a stranger held the number at the open, then the process we look
  // for was dead by then, and a dead process's start time can't appear under the number again.
  absl::StatusOr<ProcessIdentity> now = ReadIdentity(identity.pid);
  if (!now.ok()) return now.status();
  if (now->start_time_ticks != identity.start_time_ticks) {
    return Gone(identity.pid, "another process has its number now");
  }
  if (handle.HasEnded()) return Gone(identity.pid, "it has ended");
  handle.identity_ = *std::move(now);
  return handle;
}

bool ProcessHandle::HasEnded() const {
  if (exit_) return true;
  pollfd watched{.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
  return poll(&watched, 1, 0) == 1;
}

absl::Status ProcessHandle::Signal(int signal) const {
  if (exit_) return Gone(identity_.pid, "it has ended");
  if (syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0) == 0) {
    return absl::OkStatus();
  }
  if (errno == ESRCH) return Gone(identity_.pid, "it has ended");
  return ErrnoError(errno, absl::StrCat("signal process ", identity_.pid));
}

absl::StatusOr<ProcessExit> ProcessHandle::Wait(absl::Duration timeout) {
  if (exit_) return *exit_;
  ASSIGN_OR_RETURN(const bool ended, PollReadable(pidfd_.get(), timeout));
  if (!ended) {
    return absl::DeadlineExceededError(absl::StrCat("process ", identity_.pid, " still runs"));
  }
  ProcessExit exit;
  if (is_child_) {
    siginfo_t info{};
    int result;
    do {
      result = waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED | WNOHANG);
    } while (result != 0 && errno == EINTR);
    // ECHILD: somebody reaped all children of this process; the end is certain, its status lost.
    if (result == 0 && info.si_pid != 0) {
      exit.known = true;
      if (info.si_code == CLD_EXITED) exit.code = info.si_status;
      else exit.signal = info.si_status;
    }
  }
  exit_ = exit;
  return exit;
}

absl::StatusOr<ProcessExit> ProcessHandle::Kill(absl::Duration timeout) {
  const absl::Status sent = Signal(SIGKILL);
  if (!sent.ok() && !absl::IsNotFound(sent)) return sent;
  return Wait(timeout);
}

}  // namespace bunker
