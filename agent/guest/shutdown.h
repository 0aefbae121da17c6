// The end of a guest: every process, then the disks, then the power.
#pragma once

#include <cstdint>

namespace bunker::guest {

// TERM to all, KILL to what is left after `grace_ms`, flush, private disk read-only, power off.
// `rw_root_fd`: a folder of the private disk, or -1.
[[noreturn]] void ShutDown(uint32_t grace_ms, int rw_root_fd);

}  // namespace bunker::guest
