// Starts one command: pipes, cgroup, identity, exec.
#pragma once

#include <sys/types.h>

#include "agent/guest/cgroup.h"
#include "agent/guest/command.h"
#include "agent/guest/fd.h"

namespace bunker::guest {

struct Child {
  pid_t pid = -1;
  Fd stdin_write;  // not valid where stdin is /dev/null
  Fd stdout_read;
  Fd stderr_read;
  Fd status_read;  // see ReadSpawnFailure
};

// Forks. All descriptors handed back are non-blocking and close-on-exec. `cgroup` may be null: the
// command then stays in the caller's. What fails in the child after the fork is told by
// ReadSpawnFailure, what fails before it here.
CommandError Spawn(const Command& command, bool open_stdin, const Cgroup* cgroup, Child* child);

// Once the child has ended: whether it ended before it could run the command, and why. A program
// that does not exist or can't be run is no such failure: it is exit code 127 or 126 with a line
// on stderr, as from a shell.
CommandError ReadSpawnFailure(const Child& child);

}  // namespace bunker::guest
