// Copies of private disks. Holes stay holes, and blocks are shared where the file system can.
//
// Nothing here looks at what is on a disk: a guest wrote it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {

// Asked between the pieces of a copy, some milliseconds apart: an error ends it with that error.
using CopyGate = std::function<absl::Status()>;

// Makes `path` a copy of the disk `source`, `disk_mb` MiB long (at least as long as the source),
// owned by `uid` and its group, mode 0600. kAlreadyExists where `path` is there; after another
// error nothing is. Not synced. Thread-safe. Blocks for as long as it takes to copy what the disk
// holds; null gate: to its end.
absl::Status CopyRwDisk(const std::string& source, const std::string& path, uint64_t disk_mb,
                        uid_t uid, const CopyGate& gate = nullptr);

// A copy of a disk that somebody writes to. Most of it is copied while they do; then, while the
// disk stands still, what has changed since: that time is short. Not thread-safe. The temporary
// file goes with the object.
class DiskCopy {
 public:
  // The first pass: makes `temporary`, 0600 and the agent's own. kAlreadyExists where it is there.
  static absl::StatusOr<DiskCopy> Begin(const std::string& source, const std::string& temporary,
                                        const CopyGate& gate);
  DiskCopy(DiskCopy&& other) noexcept;
  DiskCopy& operator=(DiskCopy&&) = delete;
  ~DiskCopy();

  // The second pass. REQUIRES: nobody writes to the source.
  absl::Status Settle(const CopyGate& gate);

  // Makes the copy durable under the name `path`, in the same folder, and visible only then. What
  // it takes of the file system, in bytes.
  absl::StatusOr<uint64_t> Publish(const std::string& path);

 private:
  DiskCopy(UniqueFd from, UniqueFd to, std::string temporary, off_t bytes)
      : from_(std::move(from)), to_(std::move(to)), temporary_(std::move(temporary)),
        bytes_(bytes) {}

  UniqueFd from_;
  UniqueFd to_;
  std::string temporary_;  // "" once it has its name
  off_t bytes_;
};

}  // namespace bunker::agent
