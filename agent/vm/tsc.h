// The rate of this host's time stamp counter.
#pragma once

#include <cstdint>

namespace bunker::agent {

// In kHz, measured against CLOCK_MONOTONIC_RAW over ~20 ms at the first call, then remembered.
// Thread-safe. 0 where this CPU has no such counter.
uint64_t HostTscKhz();

}  // namespace bunker::agent
