// Processes that may outlive us: who a pid really is, and a handle that can't hit a stranger.
//
// A pid alone names nothing once its process is gone: the kernel hands the number out again.
// ProcessIdentity adds the start time and the host's boot, which together are never reused, and
// ProcessHandle holds a pidfd, which keeps pointing at the one process it was opened for.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/unique_fd.h"

namespace bunker {

struct ProcessIdentity {
  pid_t pid = 0;
  uint64_t start_time_ticks = 0;  // /proc/PID/stat field 22: clock ticks since the host's boot
  std::string boot_id;            // /proc/sys/kernel/random/boot_id at that time

  bool operator==(const ProcessIdentity&) const = default;
};

// How a process ended. `code` where `signal` is 0. Only a parent learns either: an adopted
// process's end is `known` = false.
struct ProcessExit {
  bool known = false;
  int code = 0;
  int signal = 0;
};

// "exit code 1", "killed by signal 9 (Killed)" or "ended, exit status unknown".
std::string DescribeExit(const ProcessExit& exit);

// This host's boot, constant while it runs. Thread-safe.
const std::string& HostBootId();

// The identity behind `pid` now; kNotFound where no such process is. A zombie still has one.
absl::StatusOr<ProcessIdentity> ReadIdentity(pid_t pid);

// Identities of all processes whose real uid lies in [first, last]. For finding what a lost
// journal no longer names; never a reason to kill.
absl::StatusOr<std::vector<ProcessIdentity>> FindProcessesByUid(uid_t first, uid_t last);

// Sole owner of a pidfd. Not thread-safe, except that fd() may be watched by a loop (readable =
// the process has ended) while nobody else touches the handle.
class ProcessHandle {
 public:
  ProcessHandle() = default;
  ProcessHandle(ProcessHandle&&) noexcept = default;
  ProcessHandle& operator=(ProcessHandle&&) noexcept = default;

  // A child that we have just made and that nobody else reaps. `pidfd` as clone3 gave it.
  static absl::StatusOr<ProcessHandle> ForChild(UniqueFd pidfd, pid_t pid);

  // Exactly the process that `identity` names, alive. kNotFound where it has ended, its number
  // went to another process, or the host has rebooted since: then there is nothing to kill.
  static absl::StatusOr<ProcessHandle> Open(const ProcessIdentity& identity);

  explicit operator bool() const { return static_cast<bool>(pidfd_); }
  int fd() const { return pidfd_.get(); }
  pid_t pid() const { return identity_.pid; }
  const ProcessIdentity& identity() const { return identity_; }
  // True where we are the parent, so that Wait() learns the status and must be called to reap.
  bool is_child() const { return is_child_; }

  // True once the process has ended (it may still be a zombie).
  bool HasEnded() const;

  // Sends `signal` to this process and no other. kNotFound where it has ended already.
  absl::Status Signal(int signal) const;

  // Waits for the end, at most `timeout`, and reaps where we are the parent. kDeadlineExceeded
  // where it still runs. May be called again: the first result is kept.
  absl::StatusOr<ProcessExit> Wait(absl::Duration timeout);

  // SIGKILL, then Wait(). An ended process is no error.
  absl::StatusOr<ProcessExit> Kill(absl::Duration timeout);

 private:
  UniqueFd pidfd_;
  ProcessIdentity identity_;
  bool is_child_ = false;
  std::optional<ProcessExit> exit_;
};

}  // namespace bunker
