// One cgroup (v2) per command, so that a kill reaches everything it started, daemons that left
// its session included.
#pragma once

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

}  // namespace bunker::guest
