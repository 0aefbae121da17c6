// The cage that a VMM runs in: a user of its own without any privilege, namespaces of its own, a
// read-only root holding only what is listed, only the listed fds, and bounded resources.
//
// A compromised VMM then finds: no other file than its images, no network, no process to signal,
// no capability to regain, no program to start (its own seccomp filter forbids that).
//
// Needs root (CAP_SYS_ADMIN, SETUID, SETGID, SETPCAP, CHOWN, DAC_OVERRIDE, MKNOD). Thread-safe.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/cancel.h"
#include "common/base/unique_fd.h"
#include "common/proc/process.h"

namespace bunker::agent {

struct JailMount {
  std::string source;     // a file or a folder of the host
  std::string target;     // where it appears, absolute; parents are made
  bool writable = false;  // else bound read-only. Always nosuid
  bool programs = false;  // may be executed or mapped as code
  bool device = false;    // a device node, to be used as one
};

struct JailSpec {
  std::string staging;    // an empty folder: the root is built on it, unseen by the host
  std::vector<std::string> argv;
  std::vector<JailMount> mounts;
  std::vector<std::pair<std::string, std::string>> symlinks;  // {path in the jail, where it leads}
  bool kvm_device = false;      // make /dev/kvm, owned by uid
  uid_t uid = 0;                // and gid
  int stderr_fd = -1;           // also stdout
  std::vector<int> fds;         // become 3, 4, …; everything else is closed
  std::vector<std::pair<int, rlim_t>> limits;  // {RLIMIT_x, soft and hard}
  std::string fds_folder;       // not "": its open files appear there by number, no more of /proc
  bool background = false;      // gives way to others where the CPU is short
  bool no_huge_pages = false;   // keeps the memory of an idle emulator small
};

// A process in the cage, held before its first step until Release(). If this object, or the agent
// with it, goes away before, the process ends by itself.
class JailedProcess {
 public:
  JailedProcess(ProcessHandle process, UniqueFd gate, UniqueFd report)
      : process_(std::move(process)), gate_(std::move(gate)), report_(std::move(report)) {}

  const ProcessIdentity& identity() const { return process_.identity(); }

  // Lets it build its cage and run its program; returns once exec has succeeded. An error names
  // the step that failed; the process has then ended. The identity stays the same throughout.
  absl::Status Release(absl::Duration timeout);

  // The process, to keep watching it. REQUIRES: Release() was OK.
  ProcessHandle TakeProcess() { return std::move(process_); }

  // Ends and reaps a process that shall not run.
  void Abandon();

 private:
  ProcessHandle process_;
  UniqueFd gate_;
  UniqueFd report_;
};

// Makes the process. It is its own session: signals to the agent's group or terminal miss it, and
// it outlives the agent.
absl::StatusOr<JailedProcess> StartJailed(const JailSpec& spec);

}  // namespace bunker::agent
