// Refuses a VmSpec that could not work, or that would be unsafe, before anything is made.
#pragma once

#include "absl/status/status.h"
#include "agent/vm/vmm.h"

namespace bunker::agent {

// kInvalidArgument or kNotFound, naming the field and the remedy. Looks at the files: the base
// must be root's and writable for nobody, the rw disk the VM's uid's alone. Thread-safe.
absl::Status CheckVmSpec(const VmSpec& spec);

}  // namespace bunker::agent
