// Starts what the host asks for: looks users up, makes the cgroup, spawns. Knows the defaults of
// commands. Not thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "agent/guest/cgroup.h"
#include "agent/guest/command.h"
#include "agent/guest/spawn.h"

namespace bunker::guest {

class Launcher {
 public:
  // `cgroup_root_fd` -1: no cgroups (tests outside a guest); else it outlives this. `boot_error`
  // not empty: everything is refused with it.
  Launcher(int cgroup_root_fd, std::string etc_folder, std::string boot_error);

  Defaults& defaults() { return defaults_; }

  struct Launched {
    Child child;
    Cgroup cgroup;
    uint32_t uid = 0;
  };
  CommandError Launch(const v1::ExecStart& start, Launched* launched);
  // Makes the next command's cgroup while nobody waits; a failure is that command's to tell.
  void MakeReady();
  // Who something that is no command is done as.
  CommandError Identify(const IdentityWish& wish, Identity* identity) const;

 private:
  Error MakeCgroup(Cgroup* cgroup);

  const int cgroup_root_fd_;
  const std::string etc_folder_;
  const std::string boot_error_;
  Defaults defaults_;
  Cgroup ready_;  // that no command was in yet; not valid where there is none
  uint64_t next_cgroup_ = 0;
  uint64_t processes_per_command_ = 0;  // 0: not known
};

}  // namespace bunker::guest
