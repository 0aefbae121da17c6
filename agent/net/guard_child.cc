#include "agent/net/guard_child.h"

#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <string>

#include "agent/confined/confine.h"
#include "agent/net/dns_guard.h"
#include "agent/net/guard_policy.h"
#include "agent/net/proxy.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/loop/event_loop.h"

namespace bunker::agent {
namespace {

constexpr size_t kMaxConfigBytes = 4 << 20;
constexpr rlim_t kMaxOpenFiles = 1024;
constexpr int kExitNotConfined = 125;

// IPv4 sockets, waiting, memory, time. Anything else is refused; what has no business in any
// program of this kind ends it.
constexpr int kAllowed[] = {SCMP_SYS(read),
                            SCMP_SYS(write),
                            SCMP_SYS(readv),
                            SCMP_SYS(writev),
                            SCMP_SYS(close),
                            SCMP_SYS(recvfrom),
                            SCMP_SYS(recvmsg),
                            SCMP_SYS(sendto),
                            SCMP_SYS(sendmsg),
                            SCMP_SYS(connect),
                            SCMP_SYS(accept4),
                            SCMP_SYS(shutdown),
                            SCMP_SYS(getsockopt),
                            SCMP_SYS(setsockopt),
                            SCMP_SYS(getsockname),
                            SCMP_SYS(epoll_wait),
                            SCMP_SYS(epoll_pwait),
                            SCMP_SYS(epoll_ctl),
                            SCMP_SYS(epoll_create1),
                            SCMP_SYS(eventfd2),
                            SCMP_SYS(brk),
                            SCMP_SYS(munmap),
                            SCMP_SYS(mremap),
                            SCMP_SYS(madvise),
                            SCMP_SYS(futex),
                            SCMP_SYS(clock_gettime),
                            SCMP_SYS(gettimeofday),
                            SCMP_SYS(getrandom),
                            SCMP_SYS(exit),
                            SCMP_SYS(exit_group),
                            SCMP_SYS(rt_sigreturn),
                            SCMP_SYS(rt_sigaction),
                            SCMP_SYS(rt_sigprocmask),
                            SCMP_SYS(sigaltstack),
                            SCMP_SYS(gettid),
                            SCMP_SYS(getpid),
                            SCMP_SYS(sched_yield),
                            SCMP_SYS(restart_syscall),
                            SCMP_SYS(fcntl),
                            SCMP_SYS(poll),
                            SCMP_SYS(ppoll),
                            SCMP_SYS(rseq)};

bool AddRules(scmp_filter_ctx filter) {
  bool ok = true;
  for (int call : kAllowed) ok &= seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0) == 0;
  const scmp_arg_cmp ipv4{0, SCMP_CMP_EQ, AF_INET, 0};
  ok &= seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, &ipv4) == 0;
  const scmp_arg_cmp not_executable{2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0};
  for (int call : {SCMP_SYS(mmap), SCMP_SYS(mprotect)})
    ok &= seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, 1, &not_executable) == 0;
  return ok;
}

absl::Status FilterSyscalls() {
  const std::unique_ptr<void, void (*)(void*)> filter(seccomp_init(SCMP_ACT_ERRNO(EPERM)),
                                                      &seccomp_release);
  if (!filter || !AddRules(filter.get()) || seccomp_load(filter.get()) != 0)
    return ErrnoError(errno, "confining the guard: seccomp");
  return absl::OkStatus();
}

absl::Status ConfineSelf(uid_t uid) {
  RETURN_IF_ERROR(DropPrivileges(uid, uid));
  // Unlike other confined children it goes on without the agent.
  if (prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0) != 0) return ErrnoError(errno, "confining the guard");
  const rlimit files{kMaxOpenFiles, kMaxOpenFiles}, none{0, 0};
  if (setrlimit(RLIMIT_NOFILE, &files) != 0 || setrlimit(RLIMIT_FSIZE, &none) != 0 ||
      setrlimit(RLIMIT_CORE, &none) != 0)
    return ErrnoError(errno, "confining the guard: setrlimit");
  return FilterSyscalls();
}

absl::StatusOr<v1::GuardConfig> ReadConfig() {
  std::string bytes;
  std::array<char, 64 * 1024> chunk;
  for (;;) {
    const ssize_t count = read(kGuardConfigFd, chunk.data(), chunk.size());
    if (count < 0) return ErrnoError(errno, "reading the guard's configuration");
    if (count == 0) break;
    bytes.append(chunk.data(), static_cast<size_t>(count));
    if (bytes.size() > kMaxConfigBytes)
      return absl::InvalidArgumentError("the guard's configuration is over 4 MiB");
  }
  close(kGuardConfigFd);
  v1::GuardConfig config;
  if (!config.ParseFromString(bytes))
    return absl::InvalidArgumentError("the guard's configuration is damaged");
  return config;
}

// An agent asks every few seconds. A guard that was begun and never noted down is asked by nobody.
class Patience {
 public:
  explicit Patience(EventLoop& loop) : loop_(loop) { Renew(); }
  void Renew() {
    loop_.CancelTimer(timer_);
    timer_ = loop_.AddTimer(absl::Hours(24), [this] { loop_.Stop(); });
  }

 private:
  EventLoop& loop_;
  EventLoop::TimerId timer_ = 0;
};

// To whoever connects: the agent alone may reach the socket. What does not fit is not told.
void Report(const GuardPolicy& policy) {
  const UniqueFd agent(accept4(kGuardReportFd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!agent) return;
  const std::string bytes = policy.events.Report().SerializeAsString();
  [[maybe_unused]] const ssize_t ignored =
      send(agent.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
}

absl::Status Serve() {
  ASSIGN_OR_RETURN(const v1::GuardConfig config, ReadConfig());
  ASSIGN_OR_RETURN(GuardPolicy policy, PolicyOf(config));
  ASSIGN_OR_RETURN(const std::unique_ptr<EventLoop> loop, EventLoop::Create());
  RETURN_IF_ERROR(ConfineSelf(config.uid()));
  DnsGuard dns(*loop, policy, kGuardDnsFd);
  Proxy proxy(*loop, policy, kGuardProxyFd);
  Patience patience(*loop);
  RETURN_IF_ERROR(dns.Start());
  RETURN_IF_ERROR(proxy.Start());
  RETURN_IF_ERROR(loop->WatchFd(kGuardReportFd, EventLoop::kReadable, [&](uint32_t) {
    Report(policy);
    patience.Renew();
  }));
  loop->Run();
  return absl::OkStatus();
}

}  // namespace

int NetGuardMain() {
  signal(SIGPIPE, SIG_IGN);
  const absl::Status status = Serve();
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return kExitNotConfined;
}

}  // namespace bunker::agent
