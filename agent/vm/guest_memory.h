// A guest's memory, read out of its VMM's process.
// Thread-safe: free functions without state.
#pragma once

#include <sys/types.h>

#include "absl/status/status.h"

namespace bunker::agent {

// Memory files that hold a guest's memory have this name: by it they are found in a process.
inline constexpr char kGuestMemoryName[] = "bunker-memory";

// Makes `fd`, a file that is empty or holds an earlier copy of the same process' guest, equal to
// the guest's memory: of an earlier copy only what may have changed is looked at, and only what has
// is written; pages of zeros stay holes where they can. So a first copy may be made while the guest
// runs, torn as it is, and a second one, once it is paused, is quick: about 1 ms a MiB in use for
// the first; for the second a third of that, and for a restored guest nothing for the pages that it
// shares with its template. The process must be ours to look into (root) and have its guest's
// memory in a memory file, shared or as a private copy. kFailedPrecondition where it has no such
// memory. Blocks.
absl::Status CopyGuestMemory(pid_t pid, int fd);

}  // namespace bunker::agent
