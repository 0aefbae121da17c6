// A snapshot: what a bunker's disk held at one moment, and its memory where that was asked for, as
// files on the worker that it ran on.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "absl/time/time.h"
#include "controller/model/cache_entry.h"
#include "controller/model/enum_names.h"

namespace bunker::controller {

enum class SnapshotStatus { kCreating, kReady, kFailed };
inline constexpr EnumName<SnapshotStatus> kSnapshotStatusNames[] = {
    {SnapshotStatus::kCreating, "creating"},
    {SnapshotStatus::kReady, "ready"},
    {SnapshotStatus::kFailed, "failed"}};
inline std::span<const EnumName<SnapshotStatus>> EnumNames(SnapshotStatus) {
  return kSnapshotStatusNames;
}

struct Snapshot {
  std::string id;  // snap_…
  std::string name;
  std::string tenant_id;
  std::string partner_id;  // the tenant's, when it was taken
  std::string owner;       // the bunker's
  std::string bunker_id;
  std::string worker_id;
  std::string image_id;  // that the disk is laid over
  std::string image_name;
  std::string image_digest;  // "" where the image was not resolved
  uint32_t disk_mb = 0;
  bool memory = false;  // a bunker made from it goes on where that one was
  // With memory, the form of the bunker that it was taken of.
  uint32_t memory_mb = 0;
  uint32_t cpu_millicores = 0;
  bool network_card = false;
  uint64_t size_bytes = 0;  // that the file takes; 0 until it is ready

  SnapshotStatus status = SnapshotStatus::kCreating;
  std::string error_code;
  std::string error_message;

  // The worker is to hold a row for it; false once it confirmed that nothing is left.
  bool assigned = false;
  uint64_t assignment_version = 0;
  bool deleting = false;   // the row goes with the file
  absl::Time told_at;      // when the worker was last told to remove it
  absl::Time created_at;
  std::optional<absl::Time> ready_at;

  // Whether its file is to be there: then its image is kept on that worker, too.
  bool kept() const { return !deleting && status != SnapshotStatus::kFailed; }
  // What it counts for, in the tenant's cap and on the worker's disk: before it is made the most
  // that it can become.
  uint64_t charged_bytes() const {
    if (status == SnapshotStatus::kCreating) return (uint64_t{disk_mb} + memory_mb) << 20;
    return assigned ? size_bytes : 0;
  }
  // Whether something has still to come of the worker.
  bool open() const { return assigned && (status != SnapshotStatus::kReady || deleting); }
  uint32_t vcpus() const { return (cpu_millicores + 999) / 1000; }
  std::string entry_key() const { return CacheEntry::Key(image_id, worker_id); }
};

}  // namespace bunker::controller
