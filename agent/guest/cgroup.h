// One cgroup (v2) per command, so that a kill reaches everything it started, daemons that left
// its session included.
#pragma once

#include <cstdint>
#include <string>

#include "agent/guest/error.h"
#include "agent/guest/fd.h"

namespace bunker::guest {

// A cgroup folder of its own; removes it when empty. Movable.
class Cgroup {
 public:
  Cgroup() = default;
  // `root_fd` is a folder of a cgroup2 mount and outlives this. `name` is one path component.
  static Error Create(int root_fd, const std::string& name, Cgroup* cgroup);

  bool valid() const { return dir_.valid(); }
  // Valid, and nobody has removed it.
  bool Exists() const;
  // At most so many processes and threads in it. An error where the kernel can't count them.
  Error LimitProcesses(uint64_t most) const;
  // The calling process moves in; for a child between fork and exec.
  Error Enter() const;
  // SIGKILL to every process in it, those being forked included.
  Error KillAll() const;
  // No live process is in it.
  bool Empty() const;
  // True once the folder is gone; false while something lives in it.
  bool Remove();

 private:
  int root_fd_ = -1;
  std::string name_;
  Fd dir_;
};

// What one command and all that it starts may have of `threads_max`, the kernel's bound for the
// whole guest: half, and always so much less than all that PID 1 can go on starting others.
uint64_t ProcessesPerCommand(uint64_t threads_max);

}  // namespace bunker::guest
