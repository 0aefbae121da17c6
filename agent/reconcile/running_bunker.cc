#include "agent/reconcile/running_bunker.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>

#include "agent/reconcile/guest_config.h"
#include "agent/reconcile/network_request.h"
#include "agent/reconcile/vm_traces.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/proc/process_usage.h"

namespace bunker::agent {
namespace {

constexpr absl::Duration kConfigureTimeout = absl::Seconds(20);

}  // namespace

absl::Status SyncGuestDisk(const v1::VmRow& row, GuestChannel& channel, absl::Duration timeout) {
  guest::v1::GuestConfig config = ConfigFor(row.wanted());
  config.set_sync_disk(true);
  return channel.Configure(config, timeout);
}

absl::Status SetBunkerPaused(const BunkerJobParts& parts, v1::VmRow& row, GuestChannel& channel,
                             bool paused) {
  using Observed = link::v1::BunkerObservation;
  if (paused) {
    row.mutable_observed()->set_status(Observed::PAUSED);
    RETURN_IF_ERROR(parts.journal.PutVm(row));
    return parts.vmm.Pause(RecordOf(row));
  }
  RETURN_IF_ERROR(parts.vmm.Resume(RecordOf(row)));
  RETURN_IF_ERROR(channel.WaitReady(kConfigureTimeout));
  // Its clock stood still.
  const absl::Status told = channel.Configure(ConfigFor(row.wanted()), kConfigureTimeout);
  if (!told.ok() && told.code() != absl::StatusCode::kFailedPrecondition) return told;
  row.mutable_observed()->set_status(Observed::RUNNING);
  return parts.journal.PutVm(row);
}

absl::StatusOr<std::string> KeptDiskPath(const std::string& disk_dir,
                                         const std::string& bunker_id) {
  const bool plain = !bunker_id.empty() && bunker_id.size() <= 64 &&
                     std::all_of(bunker_id.begin(), bunker_id.end(), [](unsigned char c) {
                       return std::isalnum(c) != 0 || c == '_' || c == '-';
                     });
  if (!plain) return absl::InvalidArgumentError("a bunker's id that can't name a file");
  return disk_dir + "/" + bunker_id + ".ext4";
}

absl::StatusOr<std::string> DiskPathOf(const v1::VmRow& row, const std::string& disk_dir) {
  if (!row.wanted().keep_disk()) return row.folder() + "/rw.ext4";
  return KeptDiskPath(disk_dir, row.wanted().bunker_id());
}

absl::Status RemoveKeptDisk(const std::string& disk_dir, const std::string& bunker_id) {
  ASSIGN_OR_RETURN(const std::string path, KeptDiskPath(disk_dir, bunker_id));
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return ErrnoError(errno, "unlink " + path);
  return absl::OkStatus();
}

absl::StatusOr<link::v1::Usage> MeasureVm(const v1::VmRow& row, const std::string& disk_dir) {
  ASSIGN_OR_RETURN(const ProcessUsage process, UsageOf(row.pid()));
  ASSIGN_OR_RETURN(const std::string disk, DiskPathOf(row, disk_dir));
  struct stat info {};
  if (::stat(disk.c_str(), &info) != 0) return ErrnoError(errno, "stat " + disk);
  link::v1::Usage usage;
  usage.set_cpu_s(process.cpu_s);
  usage.set_rss_bytes(process.rss_bytes);
  usage.set_disk_bytes(static_cast<uint64_t>(info.st_blocks) * 512);
  PutTraffic(row, &usage);
  usage.set_at_unix_ms(absl::ToUnixMillis(absl::Now()));
  return usage;
}

}  // namespace bunker::agent
