// Writing out the private disk without PID 1 having to wait for a slow one.
#pragma once

#include "agent/guest/error.h"

namespace bunker::guest {

// Writes out the file system that `root_fd` lies on, in a process of its own, which is waited for
// for at most eight seconds: less than the agent takes for a guest that answers no more. It goes on
// by itself then, and whoever reaps orphans reaps it.
Error SyncDisk(int root_fd);

}  // namespace bunker::guest
