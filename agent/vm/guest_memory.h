// A guest's memory, read out of its VMM's process while it stands still.
// Thread-safe: free functions without state.
#pragma once

#include <sys/types.h>

#include "absl/status/status.h"

namespace bunker::agent {

// Memory files that hold a guest's memory have this name: by it they are found in a process.
inline constexpr char kGuestMemoryName[] = "bunker-memory";

// Copies the guest's memory to `out_fd`, an empty file, sparsely: pages that hold zeros stay holes
// where they can. The process must be stopped in its tracks (its guest paused), ours to
// look into (root), and have its guest's memory in a memory file, shared or as a private copy.
// kFailedPrecondition where it has no such memory. Blocks for about 1 ms a MiB in use.
absl::Status CopyGuestMemory(pid_t pid, int out_fd);

}  // namespace bunker::agent
