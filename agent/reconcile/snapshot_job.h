// How a snapshot is taken: of a disk, and of the memory where that is wanted. Blocking; on pool
// threads.
// Thread-safe: free functions over thread-safe parts.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "agent/exec/guest_channel.h"
#include "agent/reconcile/bunker_job.h"
#include "bunker/agent/v1/journal.pb.h"
#include "common/base/cancel.h"

namespace bunker::agent {

struct SnapshotOutcome {
  absl::StatusOr<uint64_t> size_bytes;
  // The VM is as it was before. False: it may be paused, and nobody wanted that.
  bool is_vm_as_before = true;
};

// Copies the disk of the VM of `row` (the caller's copy) to `path`, which appears whole or not at
// all. One that runs has written out what it could and stands still for the end of the copy, for
// some seconds at most. kDeadlineExceeded (SNAPSHOT_TIMEOUT) where that was not enough; DISK_FULL.
// With `memory`, memory and devices of that moment go beside it (vm/saved_memory.h).
SnapshotOutcome SnapshotVm(const BunkerJobParts& parts, const BunkerJobOptions& options,
                           v1::VmRow row, GuestChannel& channel, const std::string& path,
                           bool memory, CancelToken& cancel);

// The same of a disk that was kept, and no VM has.
absl::StatusOr<uint64_t> SnapshotKeptDisk(const BunkerJobOptions& options,
                                          const std::string& bunker_id, const std::string& path,
                                          CancelToken& cancel);

// Its files; none there is fine.
absl::Status RemoveSnapshot(const std::string& snapshot_dir, const std::string& snapshot_id);

// Of an earlier agent's snapshots, those that are `held`, with what they take. Removes the others,
// and what was half made.
std::map<std::string, uint64_t> RecoverSnapshots(const std::string& snapshot_dir,
                                                 const std::set<std::string>& held);

}  // namespace bunker::agent
