#include "agent/guest/shutdown.h"

#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <csignal>

#include "agent/guest/exec_session.h"  // NowMicros

namespace bunker::guest {
namespace {

// Reaps until nobody is left or the time is over. True where nobody is left.
bool ReapUntil(uint64_t deadline_us) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  for (;;) {
    pid_t pid = 0;
    while ((pid = waitpid(-1, nullptr, WNOHANG)) > 0) {
    }
    if (pid < 0) return true;
    const uint64_t now = NowMicros();
    if (now >= deadline_us) return false;
    const uint64_t left = deadline_us - now;
    const timespec wait{static_cast<time_t>(left / 1'000'000),
                        static_cast<long>(left % 1'000'000 * 1000)};
    sigtimedwait(&set, nullptr, &wait);
  }
}

// The file system itself, through any descriptor on it: its mount has no path any more.
void MakeReadOnly(int root_fd) {
  const auto picked = static_cast<int>(syscall(SYS_fspick, root_fd, "", FSPICK_EMPTY_PATH));
  if (picked < 0) return;
  if (syscall(SYS_fsconfig, picked, FSCONFIG_SET_FLAG, "ro", nullptr, 0) == 0) {
    syscall(SYS_fsconfig, picked, FSCONFIG_CMD_RECONFIGURE, nullptr, nullptr, 0);
  }
}

}  // namespace

void ShutDown(uint32_t grace_ms, int rw_root_fd) {
  if (grace_ms > 0) {
    kill(-1, SIGTERM);
    kill(-1, SIGCONT);
    ReapUntil(NowMicros() + static_cast<uint64_t>(grace_ms) * 1000);
  }
  kill(-1, SIGKILL);
  ReapUntil(NowMicros() + 5'000'000);
  sync();
  mount(nullptr, "/", nullptr, MS_REMOUNT | MS_RDONLY, nullptr);
  if (rw_root_fd >= 0) MakeReadOnly(rw_root_fd);
  sync();
  reboot(RB_POWER_OFF);
  reboot(RB_AUTOBOOT);  // where the machine has no power switch: with -no-reboot it ends as well
  for (;;) pause();
}

}  // namespace bunker::guest
