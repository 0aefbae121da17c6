#include "agent/vm/accel_probe.h"

#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <new>

#include "absl/strings/str_cat.h"
#include "agent/vm/kvm_steps.h"
#include "common/base/unique_fd.h"
#include "common/proc/process.h"

namespace bunker::agent {
namespace {

constexpr absl::Duration kStepsTimeout = absl::Seconds(1);
constexpr absl::Duration kKillTimeout = absl::Seconds(2);

// A page that parent and child both see.
class SharedReport {
 public:
  SharedReport() {
    void* memory = mmap(nullptr, sizeof(KvmStepReport), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory != MAP_FAILED) report_ = new (memory) KvmStepReport;
  }
  ~SharedReport() {
    if (report_ != nullptr) munmap(report_, sizeof(KvmStepReport));
  }
  SharedReport(const SharedReport&) = delete;
  SharedReport& operator=(const SharedReport&) = delete;
  KvmStepReport* get() { return report_; }

 private:
  KvmStepReport* report_ = nullptr;
};

KvmVerdict Unable(const char* what) {
  return {false, "start the probe", absl::StrCat(what, ": ", strerrordesc_np(errno))};
}

}  // namespace

KvmVerdict ProbeKvm(const std::string& device, CancelToken& cancel) {
  SharedReport shared;
  if (shared.get() == nullptr) return Unable("mmap");
  int pidfd = -1;
  clone_args arguments{};
  arguments.flags = CLONE_PIDFD;
  arguments.pidfd = reinterpret_cast<uint64_t>(&pidfd);
  arguments.exit_signal = SIGCHLD;
  const long pid = syscall(SYS_clone3, &arguments, sizeof(arguments));
  if (pid < 0) return Unable("clone3");
  if (pid == 0) {
    RunKvmSteps(device.c_str(), shared.get());
    _exit(0);
  }
  absl::StatusOr<ProcessHandle> child =
      ProcessHandle::ForChild(UniqueFd(pidfd), static_cast<pid_t>(pid));
  if (!child.ok()) return Unable("watch the probe");
  cancel.SetCallback([fd = child->fd()] {
    syscall(SYS_pidfd_send_signal, fd, SIGKILL, nullptr, 0);
  });
  absl::StatusOr<ProcessExit> exit = child->Wait(kStepsTimeout);
  cancel.ClearCallback();
  KvmVerdict verdict;
  if (!exit.ok()) {
    // A process stuck inside the kernel may even survive this; it is then left to the kernel.
    exit = child->Kill(kKillTimeout);
    verdict.detail = absl::StrCat("no answer within ", absl::FormatDuration(kStepsTimeout));
    verdict.step = shared.get()->step;
    return verdict;
  }
  verdict.works = shared.get()->works && exit->signal == 0;
  verdict.detail = shared.get()->detail;
  if (exit->signal != 0) verdict.detail = DescribeExit(*exit);
  if (!verdict.works) verdict.step = shared.get()->step;
  return verdict;
}

}  // namespace bunker::agent
