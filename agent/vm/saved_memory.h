// A VM's memory and devices in files beside a copy of its disk: `<name>.mem`, sparse, and
// `<name>.dev`, which begins with what it can be restored with.
//
// Both appear, whole and durable, before the disk's own name does; without that they are nothing.
// Thread-safe: free functions without state. They block for about 1 ms a MiB of memory in use.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/vm/vmm.h"

namespace bunker::agent {

// `disk`: the path of the disk's copy, `<name>.ext4`. Copies what a running VM has, under a
// temporary name that is free, so that it has to stand still for less of it.
absl::Status SaveMemoryAhead(Vmm& vmm, const RunningVm& record, const std::string& disk);

// Writes what a paused VM has under temporary names. `basis` is Vmm::SnapshotBasis() of its spec.
absl::Status SaveMemory(Vmm& vmm, const RunningVm& record, const std::string& basis,
                        const std::string& disk);

// Makes it durable and gives it its names: once the VM runs again, for this may take a while.
absl::Status PublishMemory(const std::string& disk);

// What both files take on the disk; 0 where there are none.
uint64_t SavedMemoryBytes(const std::string& disk);

// What Vmm::Restore takes. kNotFound where there is none, kDataLoss where it can't be read.
absl::StatusOr<VmSnapshot> LoadMemory(const std::string& disk);

// Finished or not; none there is fine.
absl::Status RemoveMemory(const std::string& disk);

}  // namespace bunker::agent
