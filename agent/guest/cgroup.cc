#include "agent/guest/cgroup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "agent/guest/small_file.h"

namespace bunker::guest {

Error Cgroup::Create(int root_fd, const std::string& name, Cgroup* cgroup) {
  if (mkdirat(root_fd, name.c_str(), 0755) != 0) return ErrnoError("create cgroup " + name);
  cgroup->root_fd_ = root_fd;
  cgroup->name_ = name;
  cgroup->dir_ = Fd(openat(root_fd, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!cgroup->dir_.valid()) return ErrnoError("open cgroup " + name);
  return {};
}

bool Cgroup::Exists() const {
  return dir_.valid() && faccessat(root_fd_, name_.c_str(), F_OK, 0) == 0;
}

Error Cgroup::LimitProcesses(uint64_t most) const {
  return WriteSmallFile(dir_.get(), "pids.max", 0, 0, std::to_string(most));
}

uint64_t ProcessesPerCommand(uint64_t threads_max) {
  constexpr uint64_t kLeast = 32;
  return std::max(threads_max / 2, kLeast);
}

Error Cgroup::Enter() const {
  return WriteSmallFile(dir_.get(), "cgroup.procs", 0, 0, "0");
}

Error Cgroup::KillAll() const {
  return WriteSmallFile(dir_.get(), "cgroup.kill", 0, 0, "1");
}

bool Cgroup::Empty() const {
  std::string events;
  if (!ReadSmallFile(dir_.get(), "cgroup.events", 4096, &events).ok()) return true;
  return events.find("populated 0") != std::string::npos;
}

bool Cgroup::Remove() {
  if (!dir_.valid()) return true;
  if (unlinkat(root_fd_, name_.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) return false;
  dir_.Close();
  return true;
}

}  // namespace bunker::guest
