#include "agent/guest/sync_disk.h"

#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/guest/fd.h"

namespace bunker::guest {
namespace {
constexpr int kWaitMillis = 8'000;
}  // namespace

Error SyncDisk(int root_fd) {
  const pid_t child = fork();
  if (child < 0) return ErrnoError("start to write out the private disk");
  if (child == 0) _exit(syncfs(root_fd) == 0 ? 0 : 1);
  const Fd ended(static_cast<int>(syscall(SYS_pidfd_open, child, 0)));
  pollfd wait{ended.get(), POLLIN, 0};
  if (!ended.valid() || poll(&wait, 1, kWaitMillis) != 1) {
    return {"the private disk was not written out within eight seconds"};
  }
  int status = 0;
  if (waitpid(child, &status, 0) == child && status == 0) return {};
  return {"the private disk could not be written out"};
}

}  // namespace bunker::guest
