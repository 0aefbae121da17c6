// The last step of the accelerator probe: does the guest kernel itself come up under it?
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/vm/vmm.h"
#include "common/base/cancel.h"

namespace bunker::agent {

struct TrialBoot {
  std::string kernel;
  std::string initrd;
  std::string scratch_dir;  // root's; a folder is made in it and removed
  uid_t uid = 0;            // nobody else's
  Accelerator accelerator = Accelerator::kHardware;
  absl::Duration timeout = absl::Seconds(5);
};

// Boots a VM with two empty disks and waits until its PID 1 has opened the channel, which no
// kernel gets to whose CPU misbehaves. Leaves nothing behind. The error says how far it came,
// with the last of the VMM's words and of the console. Thread-safe.
absl::Status RunTrialBoot(Vmm& vmm, const TrialBoot& trial, CancelToken& cancel);

}  // namespace bunker::agent
