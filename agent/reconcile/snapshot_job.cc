#include "agent/reconcile/snapshot_job.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <utility>

#include "agent/vm/disk_copy.h"
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

}  // namespace

SnapshotOutcome SnapshotVm(const BunkerJobParts& parts, const BunkerJobOptions& options,
                           v1::VmRow row, GuestChannel& channel, const std::string& path,
                           CancelToken& cancel) {
  const bool was_paused = row.observed().status() == Observed::PAUSED;
  const absl::StatusOr<std::string> source = DiskPathOf(row, options.disk_dir);
  if (!source.ok()) return {source.status()};
  absl::StatusOr<DiskCopy> copy = BeginCopy(*source, path, cancel);
  if (!copy.ok()) return {copy.status()};
  absl::Status settled;
  SnapshotOutcome outcome{uint64_t{0}};
  if (was_paused) {
    settled = SettleInTime(*copy, cancel);
  } else {
    // Without it the copy is what a power cut leaves: good, but without what was just written.
    const absl::Status synced = SyncGuestDisk(row, channel, kMaxSync);
    if (!synced.ok())
      Log(Severity::kWarning, "snapshot.not_synced",
          {{"bunker", row.wanted().bunker_id()}, {"why", std::string(synced.message())}});
    const absl::Duration begin = MonotonicTime();
    // Journalled as paused before it is: whoever comes after this agent lets it go on.
    settled = SetBunkerPaused(parts, row, channel, true);
    if (settled.ok()) settled = SettleInTime(*copy, cancel);
    const absl::Duration still = MonotonicTime() - begin;
    const absl::Status resumed = SetBunkerPaused(parts, row, channel, false);
    outcome.is_vm_as_before = resumed.ok();
    Log(resumed.ok() ? Severity::kInfo : Severity::kWarning, "snapshot.bunker_stood_still",
        {{"bunker", row.wanted().bunker_id()},
         {"ms", absl::ToDoubleMilliseconds(still)},
         {"resumed", std::string(resumed.ok() ? "yes" : resumed.message())}});
  }
  outcome.size_bytes = settled.ok() ? copy->Publish(path) : absl::StatusOr<uint64_t>(settled);
  return outcome;
}

absl::StatusOr<uint64_t> SnapshotKeptDisk(const BunkerJobOptions& options,
                                          const std::string& bunker_id, const std::string& path,
                                          CancelToken& cancel) {
  ASSIGN_OR_RETURN(const std::string source, KeptDiskPath(options.disk_dir, bunker_id));
  ASSIGN_OR_RETURN(DiskCopy copy, BeginCopy(source, path, cancel));
  return copy.Publish(path);
}

std::map<std::string, uint64_t> RecoverSnapshots(const std::string& snapshot_dir,
                                                 const std::set<std::string>& held) {
  std::map<std::string, uint64_t> found;
  std::error_code error;
  for (const fs::directory_entry& file : fs::directory_iterator(snapshot_dir, error)) {
    const std::string id = file.path().stem();
    struct stat info{};
    const bool is_whole = file.path().extension() == ".ext4" && held.count(id) != 0 &&
                          ::stat(file.path().c_str(), &info) == 0;
    if (is_whole) {
      found[id] = static_cast<uint64_t>(info.st_blocks) * 512;
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
