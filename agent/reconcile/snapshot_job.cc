#include "agent/reconcile/snapshot_job.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <utility>

#include "absl/functional/function_ref.h"
#include "agent/reconcile/guest_config.h"
#include "agent/reconcile/running_bunker.h"
#include "agent/reconcile/vm_traces.h"
#include "agent/vm/disk_copy.h"
#include "agent/vm/saved_memory.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/proc/deadline.h"

namespace bunker::agent {
namespace {

namespace fs = std::filesystem;
using Observed = link::v1::BunkerObservation;

// How long a guest may stand still for a copy, and how long it may take to write out what it has.
constexpr absl::Duration kMaxStill = absl::Seconds(20);
constexpr absl::Duration kMaxSync = absl::Seconds(10);

absl::StatusOr<DiskCopy> BeginCopy(const std::string& source, const std::string& path,
                                   CancelToken& cancel) {
  const std::string temporary = path + ".part";
  if (::unlink(temporary.c_str()) != 0 && errno != ENOENT)
    return ErrnoError(errno, "remove " + temporary);
  return DiskCopy::Begin(source, temporary, [&cancel] { return cancel.Check(); });
}

absl::Status SettleInTime(DiskCopy& copy, CancelToken& cancel) {
  const Deadline deadline(kMaxStill);
  return copy.Settle([&]() -> absl::Status {
    RETURN_IF_ERROR(cancel.Check());
    if (!deadline.Expired()) return absl::OkStatus();
    return ReasonError(absl::StatusCode::kDeadlineExceeded, "SNAPSHOT_TIMEOUT",
                       "the bunker would have had to stand still for more than " +
                           absl::FormatDuration(kMaxStill) +
                           ": stop it before, or take it while less is written");
  });
}

absl::Status SaveMemoryOf(const BunkerJobParts& parts, const BunkerJobOptions& options,
                          const v1::VmRow& row, const std::string& path) {
  const link::v1::BunkerAssignment& wanted = row.wanted();
  const VmShape shape{wanted.cpu_millicores(), wanted.memory_mb(), HasNetworkCard(wanted)};
  ASSIGN_OR_RETURN(const std::string basis,
                   parts.vmm.SnapshotBasis(
                       FormOf(options, parts.images, row.recipe_digest(), shape)));
  return Annotate(SaveMemory(parts.vmm, RecordOf(row), basis, path), "saving the memory");
}

// `resumed`: whether the VM runs again.
absl::Status WhilePaused(const BunkerJobParts& parts, v1::VmRow& row, GuestChannel& channel,
                         absl::FunctionRef<absl::Status()> take, bool& resumed) {
  const absl::Duration begin = MonotonicTime();
  // Journalled as paused before it is: whoever comes after this agent lets it go on.
  absl::Status settled = SetBunkerPaused(parts, row, channel, true);
  if (settled.ok()) settled = take();
  const absl::Duration still = MonotonicTime() - begin;
  const absl::Status on = SetBunkerPaused(parts, row, channel, false);
  resumed = on.ok();
  Log(on.ok() ? Severity::kInfo : Severity::kWarning, "snapshot.bunker_stood_still",
      {{"bunker", row.wanted().bunker_id()},
       {"ms", absl::ToDoubleMilliseconds(still)},
       {"resumed", std::string(on.ok() ? "yes" : on.message())}});
  return settled;
}

}  // namespace

SnapshotOutcome SnapshotVm(const BunkerJobParts& parts, const BunkerJobOptions& options,
                           v1::VmRow row, GuestChannel& channel, const std::string& path,
                           bool memory, CancelToken& cancel) {
  const bool was_paused = row.observed().status() == Observed::PAUSED;
  const absl::StatusOr<std::string> source = DiskPathOf(row, options.disk_dir);
  if (!source.ok()) return {source.status()};
  absl::StatusOr<DiskCopy> copy = BeginCopy(*source, path, cancel);
  if (!copy.ok()) return {copy.status()};
  absl::Status settled = memory ? RemoveMemory(path) : absl::OkStatus();  // of an attempt before
  SnapshotOutcome outcome{uint64_t{0}};
  const auto take = [&]() -> absl::Status {
    RETURN_IF_ERROR(SettleInTime(*copy, cancel));
    return memory ? SaveMemoryOf(parts, options, row, path) : absl::OkStatus();
  };
  if (!was_paused) {
    // Without it the copy is what a power cut leaves: good, but without what was just written.
    const absl::Status synced = SyncGuestDisk(row, channel, kMaxSync);
    if (!synced.ok())
      Log(Severity::kWarning, "snapshot.not_synced",
          {{"bunker", row.wanted().bunker_id()}, {"why", std::string(synced.message())}});
    if (settled.ok() && memory) settled = SaveMemoryAhead(parts.vmm, RecordOf(row), path);
  }
  if (settled.ok())
    settled = was_paused ? take() : WhilePaused(parts, row, channel, take, outcome.is_vm_as_before);
  if (settled.ok() && memory) settled = PublishMemory(path);
  outcome.size_bytes = settled.ok() ? copy->Publish(path) : absl::StatusOr<uint64_t>(settled);
  if (!outcome.size_bytes.ok()) {
    if (const absl::Status removed = RemoveMemory(path); !removed.ok())
      Log(Severity::kWarning, "snapshot.memory_not_removed", {{"error", removed.ToString()}});
  } else {
    *outcome.size_bytes += SavedMemoryBytes(path);
  }
  return outcome;
}

absl::StatusOr<uint64_t> SnapshotKeptDisk(const BunkerJobOptions& options,
                                          const std::string& bunker_id, const std::string& path,
                                          CancelToken& cancel) {
  ASSIGN_OR_RETURN(const std::string source, KeptDiskPath(options.disk_dir, bunker_id));
  ASSIGN_OR_RETURN(DiskCopy copy, BeginCopy(source, path, cancel));
  return copy.Publish(path);
}

absl::Status RemoveSnapshot(const std::string& snapshot_dir, const std::string& snapshot_id) {
  ASSIGN_OR_RETURN(const std::string path, KeptDiskPath(snapshot_dir, snapshot_id));
  RETURN_IF_ERROR(RemoveKeptDisk(snapshot_dir, snapshot_id));
  return RemoveMemory(path);
}

std::map<std::string, uint64_t> RecoverSnapshots(const std::string& snapshot_dir,
                                                 const std::set<std::string>& held) {
  std::map<std::string, uint64_t> found;
  std::error_code error;
  for (const fs::directory_entry& file : fs::directory_iterator(snapshot_dir, error)) {
    const std::string id = file.path().stem();
    struct stat info{};
    // Memory counts with its disk, and is nothing without one.
    const std::string disk = snapshot_dir + "/" + id + ".ext4";
    const bool is_held = held.count(id) != 0 && ::stat(disk.c_str(), &info) == 0;
    const std::string kind = file.path().extension();
    if (is_held && (kind == ".mem" || kind == ".dev")) continue;
    if (is_held && kind == ".ext4") {
      found[id] = static_cast<uint64_t>(info.st_blocks) * 512 + SavedMemoryBytes(disk);
      continue;
    }
    std::error_code failed;
    fs::remove(file.path(), failed);
    Log(Severity::kWarning, "snapshot.swept",
        {{"file", file.path().string()}, {"error", failed ? failed.message() : ""}});
  }
  return found;
}

}  // namespace bunker::agent
