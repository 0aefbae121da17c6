// Finds out whether guests really run under KVM on this host. Opening /dev/kvm says little: there
// are hosts where it opens, runs one instruction, and then fails a real kernel or takes a
// thousand times as long. So the probe goes on until something has run.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "common/base/cancel.h"

namespace bunker::agent {

struct KvmVerdict {
  bool works = false;
  std::string step;    // the step that failed, in words; "" where it works
  std::string detail;  // what was seen
};

// The steps that need no VMM, in a child process with a deadline (a broken KVM may hang in the
// kernel): open and version, required capabilities, make a VM and a CPU, feature MSRs settable,
// and a 64-bit paged guest that must get through 3 million instructions in time. Milliseconds
// where KVM works; at most ~1 s. Needs access to `device`. Thread-safe.
KvmVerdict ProbeKvm(const std::string& device, CancelToken& cancel);

}  // namespace bunker::agent
