// Starts one command: pipes, cgroup, identity, exec.
#pragma once

#include <sys/types.h>

#include "agent/guest/cgroup.h"
#include "agent/guest/command.h"
#include "agent/guest/fd.h"

namespace bunker::guest {

struct Child {
  pid_t pid = -1;
  Fd stdin_write;  // not valid where stdin is /dev/null; on a terminal its other end, as stdout
  Fd stdout_read;
  Fd stderr_read;  // not valid on a terminal
  Fd status_read;  // see ReadSpawnStatus
};

// Forks. All descriptors handed back are non-blocking and close-on-exec. `cgroup` may be null: the
// command then stays in the caller's. What fails in the child after the fork is told by
// ReadSpawnStatus, what fails before it here.
CommandError Spawn(const Command& command, bool open_stdin, const Cgroup* cgroup, Child* child);

// Takes what is PID 1's alone from a child that it has forked: signals, limits, priorities.
void ResetProcessState();

// Whether it is known by now what became of the child: `*failure` is fine where the program runs,
// or says why not. `fd` is Child::status_read, readable once it is known. A program that does not
// exist or can't be run is no such failure: it is exit code 127 or 126 with a line on stderr, as
// from a shell.
bool ReadSpawnStatus(int fd, CommandError* failure);

}  // namespace bunker::guest
