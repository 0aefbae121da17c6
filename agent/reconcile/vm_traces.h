// What each VM of the agent's has on the host, whoever it is for: its journal row, its control
// group, its folder, and the way to its guest.
//
// Thread-safe: free functions.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "agent/exec/guest_channel.h"
#include "agent/vm/vmm.h"
#include "bunker/agent/v1/journal.pb.h"
#include "common/proc/cgroup.h"

namespace bunker::agent {

// Journal and record are two forms of the same facts.
RunningVm RecordOf(const v1::VmRow& row);
void PutRecord(const RunningVm& vm, v1::VmRow* row);

// Puts the VM's process into a control group of its own, named after the folder, with the memory
// and the threads that such a VM may have. To be called before it runs anything. `root` null: no.
//
// A clone's is twice the guest's: a page of the template that nobody has touched is made when the
// first clone touches it, shared by all, and counted for that one beside its private copy.
absl::Status BoundVm(const CgroupRoot* root, const VmSpec& spec, bool is_clone, pid_t pid);
// Its share of the CPUs, of which a boot may take more.
absl::Status BoundVmCpu(const CgroupRoot* root, const std::string& folder,
                        uint32_t cpu_millicores);

// Of a VM that does not run: its sockets, folder and control group. None there is fine.
absl::Status RemoveVmTraces(Vmm& vmm, const CgroupRoot* root, const std::string& folder);

// The channel to the guest of that VM; it connects in the background. `vmm` must outlive it.
std::shared_ptr<GuestChannel> OpenGuestChannel(Vmm& vmm, const v1::VmRow& row);

}  // namespace bunker::agent
