#include "agent/confined/confine.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
#else
constexpr bool kSanitized = false;
#endif

constexpr rlim_t kMaxOpenFiles = 512;
constexpr rlim_t kMaxProcesses = 1024;  // of the user: threads of all children at once

absl::Status Limit(__rlimit_resource resource, rlim_t value, rlim_t hard) {
  const rlimit limit{value, hard};
  if (setrlimit(resource, &limit) == 0) return absl::OkStatus();
  return ErrnoError(errno, "confining the child: setrlimit");
}

absl::Status SetLimits(const Confinement& confinement) {
  // A sanitizer reserves terabytes of address space.
  if (!kSanitized) {
    RETURN_IF_ERROR(Limit(RLIMIT_AS, confinement.memory_bytes, confinement.memory_bytes));
  }
  // SIGXCPU at the limit is how the parent tells; SIGKILL follows.
  RETURN_IF_ERROR(Limit(RLIMIT_CPU, confinement.cpu_seconds, confinement.cpu_seconds + 5));
  RETURN_IF_ERROR(Limit(RLIMIT_FSIZE, confinement.file_bytes, confinement.file_bytes));
  RETURN_IF_ERROR(Limit(RLIMIT_NOFILE, kMaxOpenFiles, kMaxOpenFiles));
  RETURN_IF_ERROR(Limit(RLIMIT_NPROC, kMaxProcesses, kMaxProcesses));
  return Limit(RLIMIT_CORE, 0, 0);
}

}  // namespace

absl::Status DropPrivileges(uid_t uid, gid_t gid) {
  if (uid == 0 || gid == 0) {
    return absl::FailedPreconditionError("confining the child: its user must not be root");
  }
  for (int capability = 0; capability <= CAP_LAST_CAP; ++capability) {
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno != EINVAL) {
      return ErrnoError(errno, "confining the child: the capability bounding set");
    }
  }
  if (setgroups(0, nullptr) != 0 || setresgid(gid, gid, gid) != 0 ||
      setresuid(uid, uid, uid) != 0) {
    return ErrnoError(errno, "confining the child: changing to its user (the agent must be root)");
  }
  const std::unique_ptr<_cap_struct, int (*)(void*)> none(cap_init(), &cap_free);
  if (!none || cap_set_proc(none.get()) != 0) {
    return ErrnoError(errno, "confining the child: dropping capabilities");
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return ErrnoError(errno, "confining the child: no new privileges");
  }
  // Not traceable, no core, /proc/<pid> is root's. Kept alive only as long as the parent is.
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 || prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) {
    return ErrnoError(errno, "confining the child: process flags");
  }
  return absl::OkStatus();
}

namespace {

// Every file system right the kernel knows is handled, none is granted. Descriptors that are open
// already are not affected.
absl::Status ForbidFiles() {
  const long version =
      syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (version < 0) return absl::OkStatus();  // a kernel without it: the user and seccomp remain
  landlock_ruleset_attr rights = {};
  rights.handled_access_fs = (1ull << 13) - 1;               // what version 1 knows
  if (version >= 2) rights.handled_access_fs |= 1ull << 13;  // refer
  if (version >= 3) rights.handled_access_fs |= 1ull << 14;  // truncate by path
  const long rules = syscall(SYS_landlock_create_ruleset, &rights, sizeof(rights), 0);
  if (rules < 0) return ErrnoError(errno, "confining the child: Landlock");
  const long restricted = syscall(SYS_landlock_restrict_self, rules, 0);
  const int error_number = errno;
  close(static_cast<int>(rules));
  if (restricted != 0) return ErrnoError(error_number, "confining the child: Landlock");
  return absl::OkStatus();
}

// What threads, memory, and reading and writing open descriptors need.
constexpr int kAllowed[] = {
    SCMP_SYS(read),
    SCMP_SYS(pread64),
    SCMP_SYS(readv),
    SCMP_SYS(preadv),
    SCMP_SYS(write),
    SCMP_SYS(pwrite64),
    SCMP_SYS(writev),
    SCMP_SYS(pwritev),
    SCMP_SYS(lseek),
    SCMP_SYS(fstat),
    SCMP_SYS(ftruncate),
    SCMP_SYS(fallocate),
    SCMP_SYS(fsync),
    SCMP_SYS(fdatasync),
    SCMP_SYS(sync_file_range),
    SCMP_SYS(close),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(brk),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(futex),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(getrandom),
    SCMP_SYS(getrusage),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(membarrier),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
};

// Asked for out of habit by libraries, and answered with a plain refusal; anything else kills.
constexpr int kRefused[] = {
    SCMP_SYS(open),
    SCMP_SYS(openat),
    SCMP_SYS(stat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(access),
    SCMP_SYS(readlink),
    SCMP_SYS(uname),
    SCMP_SYS(sysinfo),
    SCMP_SYS(prctl),
    SCMP_SYS(ioctl),
    SCMP_SYS(sched_setaffinity),
    SCMP_SYS(prlimit64),
};

// clone() may make threads only; the pages of mmap() and mprotect() may never be executable.
bool AddRules(scmp_filter_ctx filter) {
  bool ok = true;
  for (int call : kAllowed) ok &= seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0) == 0;
  for (int call : kRefused) ok &= seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), call, 0) == 0;
  constexpr uint64_t kThread = CLONE_THREAD | CLONE_VM;
  const scmp_arg_cmp thread{0, SCMP_CMP_MASKED_EQ, kThread, kThread};
  ok &= seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, &thread) == 0;
  // Bakes share a user: abort() may signal this process and no other.
  const scmp_arg_cmp own_process{0, SCMP_CMP_EQ, static_cast<scmp_datum_t>(getpid()), 0};
  ok &= seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, &own_process) == 0;
  // Not those with which a descriptor is made to signal whomever one likes.
  for (const scmp_datum_t command : {F_GETFL, F_SETFL, F_GETFD, F_SETFD, F_DUPFD_CLOEXEC}) {
    const scmp_arg_cmp harmless{1, SCMP_CMP_EQ, command, 0};
    ok &= seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1, &harmless) == 0;
  }
  // Its flags lie in memory, where a filter can't see them: glibc then takes clone().
  ok &= seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0) == 0;
  const scmp_arg_cmp not_executable{2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0};
  for (int call : {SCMP_SYS(mmap), SCMP_SYS(mprotect)}) {
    ok &= seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, 1, &not_executable) == 0;
  }
  return ok;
}

absl::Status FilterSyscalls() {
  const std::unique_ptr<void, void (*)(void*)> filter(seccomp_init(SCMP_ACT_KILL_PROCESS),
                                                      &seccomp_release);
  if (!filter || !AddRules(filter.get()) || seccomp_load(filter.get()) != 0) {
    return ErrnoError(errno, "confining the child: seccomp");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Confine(const Confinement& confinement) {
  if (unshare(CLONE_NEWNET) != 0) {
    return ErrnoError(errno,
                      "confining the child: a network namespace of its own (the agent must "
                      "be root)");
  }
  RETURN_IF_ERROR(DropPrivileges(confinement.uid, confinement.gid));
  RETURN_IF_ERROR(ForbidFiles());
  RETURN_IF_ERROR(SetLimits(confinement));
  return FilterSyscalls();
}

}  // namespace bunker::agent
