#include "agent/vm/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <deque>
#include <set>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/proc/deadline.h"

namespace bunker::agent {
namespace {

constexpr absl::Duration kReapTimeout = absl::Seconds(5);
// Fds are first moved above this, so that putting one into its place never overwrites another.
constexpr int kParkedFds = 256;
// A tenth of what others get where all want the CPU. At 19 a boot on a busy host takes so long that
// what it is for comes too late.
constexpr int kBackgroundNice = 10;

// What the child says when a step fails; written at once, so a reader gets all or nothing.
struct Failure {
  char step[64];
  int error_number;
};

enum class Action { kMakeFolder, kMakeFile, kSymlink, kBind, kRemount };

// One prepared system call; strings are owned by the Plan.
struct Operation {
  Action action;
  const char* target;  // relative to the new root
  const char* source;  // bind: host path; symlink: its text
  unsigned long flags;
};

// Everything the child needs, made before it exists: between clone and exec it may not allocate
// or lock, since another thread of the agent may have held any lock at the clone.
struct Plan {
  const JailSpec* spec = nullptr;
  std::deque<std::string> strings;  // its elements never move
  std::vector<Operation> operations;
  std::vector<char*> argv;
  int gate_fd = -1;
  int report_fd = -1;
  int null_fd = -1;
  int last_capability = 0;
};

// ---- in the child: async-signal-safe calls only ----------------------------------------------

[[noreturn]] void Fail(int report_fd, const char* step, int error_number) {
  Failure failure{};
  strncpy(failure.step, step, sizeof(failure.step) - 1);
  failure.error_number = error_number;
  [[maybe_unused]] const ssize_t ignored = write(report_fd, &failure, sizeof(failure));
  _exit(127);
}

// Leaves open 0, 1, 2, the passed fds, and behind them gate and report (returned in place).
void ArrangeFds(const Plan& plan, int* gate_fd, int* report_fd) {
  const JailSpec& spec = *plan.spec;
  std::array<int, 16> sources{};
  size_t count = 0;
  sources[count++] = plan.null_fd;
  sources[count++] = spec.stderr_fd;
  sources[count++] = spec.stderr_fd;
  for (const int fd : spec.fds) sources[count++] = fd;
  sources[count++] = *gate_fd;
  sources[count++] = *report_fd;
  for (size_t i = 0; i < count; ++i) {
    sources[i] = fcntl(sources[i], F_DUPFD, kParkedFds);
    if (sources[i] < 0) Fail(plan.report_fd, "park fds", errno);
  }
  const int parked_report = sources[count - 1];
  for (size_t i = 0; i < count; ++i) {
    if (dup2(sources[i], static_cast<int>(i)) < 0) Fail(parked_report, "place fds", errno);
  }
  *gate_fd = static_cast<int>(count) - 2;
  *report_fd = static_cast<int>(count) - 1;
  if (syscall(SYS_close_range, count, ~0U, 0) != 0) Fail(*report_fd, "close fds", errno);
  fcntl(*gate_fd, F_SETFD, FD_CLOEXEC);
  fcntl(*report_fd, F_SETFD, FD_CLOEXEC);
}

void ResetSignals() {
  struct sigaction action{};
  action.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) sigaction(signal, &action, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

// Waits for the parent's word. Its end of the pipe closing without one means that nobody has
// journalled this process: then it must not exist.
void WaitAtGate(int gate_fd) {
  char word = 0;
  ssize_t count;
  do {
    count = read(gate_fd, &word, 1);
  } while (count < 0 && errno == EINTR);
  if (count != 1) _exit(126);
}

void Apply(const Operation& operation, int report_fd) {
  int result = 0;
  switch (operation.action) {
    case Action::kMakeFolder:
      result = mkdir(operation.target, 0755);
      break;
    case Action::kMakeFile: {
      const int fd = open(operation.target, O_WRONLY | O_CREAT | O_EXCL, 0444);
      result = fd < 0 ? -1 : close(fd);
      break;
    }
    case Action::kSymlink:
      result = symlink(operation.source, operation.target);
      break;
    case Action::kBind:
      result = mount(operation.source, operation.target, nullptr, MS_BIND, nullptr);
      break;
    case Action::kRemount:
      result = mount(nullptr, operation.target, nullptr, operation.flags, nullptr);
      break;
  }
  if (result != 0) Fail(report_fd, operation.target, errno);
}

// The current folder becomes the root, and nothing of the old one stays reachable. The old root
// ends up on top of the new one, with whatever was mounted over it in turn (a unit's or a
// container's set-up may stack roots): all of that is taken off, or "/.." would lead there.
void LeaveOldRoot(int report_fd) {
  constexpr int kMaxStackedRoots = 64;
  const int old_root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (old_root < 0) Fail(report_fd, "open the old root", errno);
  if (syscall(SYS_pivot_root, ".", ".") != 0) Fail(report_fd, "pivot_root", errno);
  int taken_off = 0;
  while (fchdir(old_root) == 0 && umount2(".", MNT_DETACH) == 0) {
    if (++taken_off > kMaxStackedRoots) Fail(report_fd, "detach the old root", ELOOP);
  }
  // EINVAL: the old root is in no namespace of ours any more.
  if (errno != EINVAL || taken_off == 0) Fail(report_fd, "detach the old root", errno);
  close(old_root);
  if (chdir("/") != 0) Fail(report_fd, "enter /", errno);
  struct stat root{}, above{};
  if (stat("/", &root) != 0 || stat("/..", &above) != 0) Fail(report_fd, "look at /", errno);
  if (root.st_dev != above.st_dev || root.st_ino != above.st_ino) {
    Fail(report_fd, "the old root is still there", EEXIST);
  }
}

// Nothing that is mounted from here on may be seen by anybody else.
void MakeMountsPrivate(const std::string& staging, int report_fd) {
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0) return;
  // In a plain chroot "/" is no mount, and pivot_root would refuse it too. Bound onto a folder and
  // entered there, it is one.
  if (errno != EINVAL) Fail(report_fd, "make mounts private", errno);
  if (mount("/", staging.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0) {
    Fail(report_fd, "make the chroot a mount", errno);
  }
  if (chdir(staging.c_str()) != 0 || chroot(".") != 0) Fail(report_fd, "enter the chroot", errno);
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    Fail(report_fd, "make mounts private", errno);
  }
}

// The folder of this process's open files, taken out of a /proc that nobody else sees and that is
// gone again after. It is the first process of its own pid namespace.
void ShowOwnFds(const char* target, int report_fd) {
  constexpr unsigned long kFlags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  if (mkdir("proc", 0555) != 0 || mount("proc", "proc", "proc", kFlags, nullptr) != 0) {
    Fail(report_fd, "mount the jail's /proc", errno);
  }
  if (mkdir(target, 0555) != 0 ||
      mount("proc/1/fd", target, nullptr, MS_BIND, nullptr) != 0 ||
      mount(nullptr, target, nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | kFlags, nullptr) != 0) {
    Fail(report_fd, "show the jail its open files", errno);
  }
  if (umount2("proc", MNT_DETACH) != 0 || rmdir("proc") != 0) {
    Fail(report_fd, "take off the jail's /proc", errno);
  }
}

void BuildRoot(const Plan& plan, int report_fd) {
  const JailSpec& spec = *plan.spec;
  MakeMountsPrivate(spec.staging, report_fd);
  unsigned long root_flags = MS_NOSUID | MS_NOEXEC;
  if (!spec.kvm_device) root_flags |= MS_NODEV;
  if (mount("jail", spec.staging.c_str(), "tmpfs", root_flags,
            "size=64k,nr_inodes=128,mode=0755") != 0) {
    Fail(report_fd, "mount the jail's root", errno);
  }
  if (chdir(spec.staging.c_str()) != 0) Fail(report_fd, "enter the jail's root", errno);
  for (const Operation& operation : plan.operations) Apply(operation, report_fd);
  if (spec.kvm_device) {
    if ((mkdir("dev", 0755) != 0 && errno != EEXIST) ||
        mknod("dev/kvm", S_IFCHR | 0600, makedev(10, 232)) != 0 ||
        chown("dev/kvm", spec.uid, spec.uid) != 0) {
      Fail(report_fd, "make /dev/kvm", errno);
    }
  }
  if (!spec.fds_folder.empty()) ShowOwnFds(spec.fds_folder.c_str() + 1, report_fd);
  LeaveOldRoot(report_fd);
  if (mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | root_flags, nullptr) != 0) {
    Fail(report_fd, "make the root read-only", errno);
  }
}

void DropPrivileges(const Plan& plan, int report_fd) {
  const JailSpec& spec = *plan.spec;
  for (int capability = 0; capability <= plan.last_capability; ++capability) {
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) {
      Fail(report_fd, "empty the capability bounding set", errno);
    }
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  // Raw calls: glibc's wrappers would signal threads that only the parent has.
  if (syscall(SYS_setgroups, 0, nullptr) != 0) Fail(report_fd, "drop groups", errno);
  if (syscall(SYS_setresgid, spec.uid, spec.uid, spec.uid) != 0) Fail(report_fd, "setgid", errno);
  if (syscall(SYS_setresuid, spec.uid, spec.uid, spec.uid) != 0) Fail(report_fd, "setuid", errno);
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct none[2] = {};
  if (syscall(SYS_capset, &header, none) != 0) Fail(report_fd, "drop capabilities", errno);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) Fail(report_fd, "no_new_privs", errno);
}

[[noreturn]] void RunChild(const Plan& plan) {
  const JailSpec& spec = *plan.spec;
  int gate_fd = plan.gate_fd;
  int report_fd = plan.report_fd;
  ArrangeFds(plan, &gate_fd, &report_fd);
  ResetSignals();
  WaitAtGate(gate_fd);
  if (setsid() < 0) Fail(report_fd, "setsid", errno);
  umask(022);
  static constexpr char kHostname[] = "jail";
  // Hides the host's name, no more. A unit with ProtectHostname= forbids it, in all namespaces.
  [[maybe_unused]] const int ignored = sethostname(kHostname, sizeof(kHostname) - 1);
  BuildRoot(plan, report_fd);
  for (const auto& [resource, value] : spec.limits) {
    const rlimit limit{.rlim_cur = value, .rlim_max = value};
    // NPROC counts the uid's processes of the whole host: that's why each VM has its own.
    if (setrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0) {
      Fail(report_fd, "setrlimit", errno);
    }
  }
  if (spec.background) setpriority(PRIO_PROCESS, 0, kBackgroundNice);
  if (spec.no_huge_pages) prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  DropPrivileges(plan, report_fd);
  char* const no_environment[] = {nullptr};
  execve(plan.argv[0], plan.argv.data(), no_environment);
  Fail(report_fd, "exec", errno);
}

// ---- in the parent ---------------------------------------------------------------------------

// Adds the folders above `path` (relative), each once.
void AddParents(const std::string& path, std::set<std::string>* made, Plan* plan) {
  for (size_t slash = path.find('/'); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string folder = path.substr(0, slash);
    if (!made->insert(folder).second) continue;
    plan->strings.push_back(folder);
    plan->operations.push_back({Action::kMakeFolder, plan->strings.back().c_str(), nullptr, 0});
  }
}

absl::Status AddMounts(const JailSpec& spec, Plan* plan) {
  std::set<std::string> made;
  for (const auto& [path, leads_to] : spec.symlinks) {
    plan->strings.push_back(path.substr(1));
    const char* target = plan->strings.back().c_str();
    AddParents(path.substr(1), &made, plan);
    plan->operations.push_back({Action::kSymlink, target, leads_to.c_str(), 0});
  }
  for (const JailMount& entry : spec.mounts) {
    struct stat info{};
    if (stat(entry.source.c_str(), &info) != 0) {
      return ErrnoError(errno, absl::StrCat("the VM needs ", entry.source));
    }
    plan->strings.push_back(entry.target.substr(1));
    const char* target = plan->strings.back().c_str();
    AddParents(entry.target.substr(1), &made, plan);
    const bool folder = S_ISDIR(info.st_mode);
    if (folder) made.insert(entry.target.substr(1));
    plan->operations.push_back(
        {folder ? Action::kMakeFolder : Action::kMakeFile, target, nullptr, 0});
    plan->operations.push_back({Action::kBind, target, entry.source.c_str(), 0});
    unsigned long flags = MS_REMOUNT | MS_BIND | MS_NOSUID;
    if (!entry.device) flags |= MS_NODEV;
    if (!entry.writable) flags |= MS_RDONLY;
    if (!entry.programs) flags |= MS_NOEXEC;
    plan->operations.push_back({Action::kRemount, target, nullptr, flags});
  }
  return absl::OkStatus();
}

int LastCapability() {
  int last = 0;
  while (prctl(PR_CAPBSET_READ, last + 1, 0, 0, 0) >= 0) ++last;
  return last;
}

absl::Status CheckSpec(const JailSpec& spec) {
  if (spec.uid == 0) return absl::InvalidArgumentError("a jail's uid must not be root's");
  if (spec.argv.empty()) return absl::InvalidArgumentError("a jail needs a program");
  if (spec.fds.size() > 8) return absl::InvalidArgumentError("a jail passes at most 8 fds");
  if (spec.stderr_fd < 0) return absl::InvalidArgumentError("a jail needs a stderr");
  for (const JailMount& entry : spec.mounts) {
    if (entry.target.size() < 2 || entry.target[0] != '/') {
      return absl::InvalidArgumentError(absl::StrCat("bad jail path '", entry.target, "'"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status JailedProcess::Release(absl::Duration timeout) {
  const char word = 'g';
  if (write(gate_.get(), &word, 1) != 1) {
    const absl::Status error = ErrnoError(errno, "release the VM's process");
    Abandon();
    return error;
  }
  gate_.reset();
  const Deadline deadline(timeout);
  while (true) {
    pollfd watched{.fd = report_.get(), .events = POLLIN, .revents = 0};
    const int ready = poll(&watched, 1, deadline.PollTimeoutMs());
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0 && !deadline.Expired()) continue;
    if (ready <= 0) {
      Abandon();
      return absl::DeadlineExceededError("the VM's process did not get through its jail in time");
    }
    break;
  }
  Failure failure{};
  const ssize_t count = read(report_.get(), &failure, sizeof(failure));
  report_.reset();
  if (count == 0 && !process_.HasEnded()) return absl::OkStatus();  // closed by the exec
  if (count == sizeof(failure)) {
    failure.step[sizeof(failure.step) - 1] = '\0';
    Abandon();
    return ErrnoError(failure.error_number, absl::StrCat("jail: ", failure.step));
  }
  // Either the exec went well and the program ended at once (the caller sees that), or it was
  // killed on the way.
  return absl::OkStatus();
}

void JailedProcess::Abandon() {
  gate_.reset();
  report_.reset();
  // The result is of no interest: it was never let go.
  [[maybe_unused]] const auto ended = process_.Kill(kReapTimeout);
}

absl::StatusOr<JailedProcess> StartJailed(const JailSpec& spec) {
  RETURN_IF_ERROR(CheckSpec(spec));
  Plan plan;
  plan.spec = &spec;
  RETURN_IF_ERROR(AddMounts(spec, &plan));
  for (const std::string& word : spec.argv) plan.argv.push_back(const_cast<char*>(word.c_str()));
  plan.argv.push_back(nullptr);
  plan.last_capability = LastCapability();

  int gate[2], report[2];
  if (pipe2(gate, O_CLOEXEC) != 0) return ErrnoError(errno, "pipe2");
  UniqueFd gate_read(gate[0]), gate_write(gate[1]);
  if (pipe2(report, O_CLOEXEC) != 0) return ErrnoError(errno, "pipe2");
  UniqueFd report_read(report[0]), report_write(report[1]);
  const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return ErrnoError(errno, "open /dev/null");
  plan.gate_fd = gate_read.get();
  plan.report_fd = report_write.get();
  plan.null_fd = null.get();

  int pidfd = -1;
  clone_args arguments{};
  arguments.flags = CLONE_PIDFD | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC |
                    CLONE_NEWUTS | CLONE_NEWCGROUP;
  arguments.pidfd = reinterpret_cast<uint64_t>(&pidfd);
  arguments.exit_signal = SIGCHLD;
  const long pid = syscall(SYS_clone3, &arguments, sizeof(arguments));
  if (pid < 0) {
    return Annotate(ErrnoError(errno, "clone3 into own namespaces"),
                    "the agent must run as root (its unit must not restrict namespaces)");
  }
  if (pid == 0) RunChild(plan);
  absl::StatusOr<ProcessHandle> process =
      ProcessHandle::ForChild(UniqueFd(pidfd), static_cast<pid_t>(pid));
  if (!process.ok()) return process.status();
  return JailedProcess(*std::move(process), std::move(gate_write), std::move(report_read));
}

}  // namespace bunker::agent
