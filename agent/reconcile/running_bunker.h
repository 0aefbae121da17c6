// What is done to a bunker that runs, and the files of its private disk. Blocking; on pool threads.
// Thread-safe: free functions over thread-safe parts.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/reconcile/bunker_job.h"

namespace bunker::agent {

// Has the guest write to its disk all that is to be there. An error: it did not, or not in time.
absl::Status SyncGuestDisk(const v1::VmRow& row, GuestChannel& channel, absl::Duration timeout);

// Pauses the VM of that row, or lets it go on with its clock set. What is so already is fine. The
// journal says PAUSED before it is, and RUNNING after it does; `row`, the caller's copy, as well.
absl::Status SetBunkerPaused(const BunkerJobParts& parts, v1::VmRow& row, GuestChannel& channel,
                             bool paused);

// The disk of a bunker that keeps one. Its name is the bunker's id, which the controller made; an
// id that is no plain word is refused.
absl::StatusOr<std::string> KeptDiskPath(const std::string& disk_dir,
                                         const std::string& bunker_id);

// The private disk that the VM of that row has.
absl::StatusOr<std::string> DiskPathOf(const v1::VmRow& row, const std::string& disk_dir);

// Removes it; none there is fine.
absl::Status RemoveKeptDisk(const std::string& disk_dir, const std::string& bunker_id);

// What the VM of that row takes, its private disk included. kNotFound where it has ended.
absl::StatusOr<link::v1::Usage> MeasureVm(const v1::VmRow& row, const std::string& disk_dir);

}  // namespace bunker::agent
