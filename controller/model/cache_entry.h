// An image on a worker: wanted or not, and how far it has come.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "controller/model/enum_names.h"

namespace bunker::controller {

enum class CacheStatus { kPending, kBuilding, kReady, kFailed, kEvicted };
inline constexpr EnumName<CacheStatus> kCacheStatusNames[] = {{CacheStatus::kPending, "pending"},
                                                              {CacheStatus::kBuilding, "building"},
                                                              {CacheStatus::kReady, "ready"},
                                                              {CacheStatus::kFailed, "failed"},
                                                              {CacheStatus::kEvicted, "evicted"}};
inline std::span<const EnumName<CacheStatus>> EnumNames(CacheStatus) { return kCacheStatusNames; }

// Whether the table of legal transitions holds `from` → `to` (staying is legal).
bool CanAdvance(CacheStatus from, CacheStatus to);

// What stands against making an image on a worker that a group pairs it with.
enum class SkipReason {
  kNone,
  kWrongArch,  // the file would be of no use there
  kTooLarge,   // it can never fit
  kNoRoom,     // it does not fit now: the row says what would have to go
};
inline constexpr EnumName<SkipReason> kSkipReasonNames[] = {{SkipReason::kNone, ""},
                                                            {SkipReason::kWrongArch, "wrong_arch"},
                                                            {SkipReason::kTooLarge, "too_large"},
                                                            {SkipReason::kNoRoom, "no_room"}};
inline std::span<const EnumName<SkipReason>> EnumNames(SkipReason) {
  return kSkipReasonNames;
}

struct StageTime {
  std::string name;
  double ms = 0;
  bool operator==(const StageTime&) const = default;
};

struct CacheEntry {
  std::string image_id;
  std::string worker_id;
  CacheStatus status = CacheStatus::kPending;

  // A group wants it there, and the image suits the worker.
  bool wanted = true;
  // Not kNone: nothing is sent, and the row is pending with an error that says why.
  SkipReason skip = SkipReason::kNone;
  // Its place among the rows that wait for their turn; 0: it does not wait. See
  // controller/engine/work_queue.h.
  uint64_t queue_tag = 0;
  uint64_t reserved_bytes = 0;  // of the worker's disk, from its turn until it is ready
  uint64_t change_id = 0;       // rises with each change, over all rows and restarts
  // The worker has (or is to get) a row for it. False: the worker is to drop the file.
  bool assigned = false;
  uint64_t assignment_version = 0;  // of the row; 0: never sent
  uint64_t observation_version = 0;  // newest taken from the worker; 0: none
  bool observed_ready = false;       // it said that the file is there

  uint32_t attempt = 1;   // raised to make a bake run again
  uint64_t tag_check = 0;       // raised to have the tag looked up by this worker
  uint64_t tag_check_seen = 0;  // the last one that it reported
  uint32_t failures = 0;  // in a row; what the back-off grows with
  std::optional<absl::Time> retry_at;

  std::string stage;   // resolving | pulling | baking | verifying
  std::string source;  // registry | peer | cache | file
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;
  uint64_t rate_bytes_per_s = 0;
  std::string recipe_digest;
  std::string rootfs_digest;
  uint64_t allocated_bytes = 0;
  std::vector<StageTime> stages;
  std::string error_code;
  std::string error_message;
  bool retryable = false;

  absl::Time created_at;
  absl::Time updated_at;
  absl::Time last_used_at;  // by a bunker's create

  // A group pairs image and worker, whether or not the image suits.
  bool in_scope() const {
    return wanted || skip == SkipReason::kWrongArch || skip == SkipReason::kTooLarge;
  }
  // Waits for the worker, or is being made there.
  bool open() const { return status == CacheStatus::kPending || status == CacheStatus::kBuilding; }

  // The row's key: "<image id>/<worker id>".
  std::string key() const { return image_id + "/" + worker_id; }
  static std::string Key(const std::string& image_id, const std::string& worker_id) {
    return image_id + "/" + worker_id;
  }
  // Seconds left, from the bytes and the rate; nothing where unknown.
  std::optional<double> eta_s() const;
};

// What was told of the attempt so far, failures counted in a row apart, is no longer true.
void ForgetProgress(CacheEntry& entry);

// Moves the entry. REQUIRES: CanAdvance(entry.status, to).
void Advance(CacheEntry& entry, CacheStatus to, absl::Time now);

}  // namespace bunker::controller
