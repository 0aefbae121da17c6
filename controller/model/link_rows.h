// The rows of the two tables mirrored with each agent, as plain structs. The link maps them to and
// from its own protos; see proto/bunker/link/v1/agent_link.proto for what the fields mean.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "controller/model/bunker.h"
#include "controller/model/cache_entry.h"
#include "controller/model/image.h"
#include "controller/model/worker.h"

namespace bunker::controller {

// "images/<image id>", "bunkers/<bunker id>", "scans/<image id>", "snapshots/<snapshot id>" and
// "disk".
inline std::string ImageRowName(const std::string& image_id) { return "images/" + image_id; }
inline constexpr char kDiskRowName[] = "disk";
inline std::string BunkerRowName(const std::string& bunker_id) { return "bunkers/" + bunker_id; }
inline std::string ScanRowName(const std::string& image_id) {
  return "scans/" + image_id;
}
inline std::string SnapshotRowName(const std::string& snapshot_id) {
  return "snapshots/" + snapshot_id;
}

// ---- down: what a worker is to have ---------------------------------------------------------

struct ImageAssignment {
  std::string image_id;
  BuildSource source;
  std::string tenant_id;
  Scope scope = Scope::kTenant;
  std::string manifest_digest;  // pinned; empty: resolve the ref and report it
  uint32_t size_mib = 0;
  Arch arch = Arch::kUnspecified;
  uint32_t attempt = 1;
  uint32_t default_cpu_millicores = 0;
  uint32_t default_memory_mb = 0;
  uint64_t default_disk_mb = 0;
  std::string credential_id;  // not empty: the worker asks for the login when it pulls
  uint64_t tag_check = 0;     // raised to have the tag looked up once
  bool expendable = false;  // no group wants it: the agent may drop it where its disk is full
  bool operator==(const ImageAssignment&) const = default;
};

struct BunkerAssignment {
  std::string bunker_id;
  uint32_t incarnation = 1;
  std::string image_id;
  std::string tenant_id;
  uint32_t cpu_millicores = 0;
  uint32_t memory_mb = 0;
  uint64_t disk_mb = 0;
  std::string hostname;
  std::map<std::string, std::string> env;
  std::string working_dir;
  std::string user;
  NetworkProfile network_profile = NetworkProfile::kIsolated;
  std::vector<std::string> network_allowlist;
  std::vector<BunkerInterface> interfaces;
  uint32_t bandwidth_mbit = 0;
  uint64_t disk_bytes_per_s = 0;
  uint32_t disk_iops = 0;
  bool stopped = false;  // desired STOPPED, else RUNNING or PAUSED
  bool paused = false;
  bool keep_disk = false;      // its disk outlives its VM
  bool disk_expected = false;  // a start without the disk of before must fail
  uint64_t boot_deadline_ms = 0;
  std::string snapshot_id;  // the disk begins as a copy of it; "": empty
  bool snapshot_memory = false;
  std::optional<MainProgram> main;  // its args: the whole command
  bool operator==(const BunkerAssignment&) const = default;
};

struct ScanAssignment {
  std::string image_id;
  uint64_t generation = 0;
  bool operator==(const ScanAssignment&) const = default;
};

struct SnapshotAssignment {
  std::string snapshot_id;
  std::string bunker_id;
  bool gone = false;      // desired GONE, else TAKEN
  bool expected = false;  // it was ready: it can't be made again
  bool memory = false;
  bool operator==(const SnapshotAssignment&) const = default;
};

struct DesiredRow {
  std::string worker_id;
  std::string name;
  uint64_t version = 0;  // never reused, not even for another content after a restart
  std::variant<ImageAssignment, BunkerAssignment, ScanAssignment, SnapshotAssignment> row;
};
using DesiredRowPtr = std::shared_ptr<const DesiredRow>;

// ---- up: what a worker says -----------------------------------------------------------------

struct ImageObservation {
  std::string image_id;
  uint32_t attempt = 0;
  // kEvicted: the agent dropped an expendable file to make room.
  CacheStatus status = CacheStatus::kPending;
  std::string stage;
  std::string source;
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;
  uint64_t rate_bytes_per_s = 0;
  std::optional<ResolvedImage> resolved;
  Arch resolved_arch = Arch::kUnspecified;
  std::string recipe_digest;
  std::string rootfs_digest;
  uint64_t allocated_bytes = 0;
  std::string error_code;
  std::string error_message;
  bool retryable = false;
  std::vector<StageTime> stages;
  uint64_t tag_check = 0;  // the one that was done
  std::string tag_digest;  // what the tag names; empty: the registry did not say
  std::optional<absl::Time> last_used_at;  // by a VM there
};

// The worker's one row about its disk.
using DiskObservation = WorkerDisk;

// What a bunker's network allowed or refused; repeats are folded into one.
struct NetworkEvent {
  absl::Time at;  // the newest
  bool allowed = false;
  std::string rule;
  std::string proto;
  std::string dst;
  uint32_t port = 0;
  std::string name;
  uint64_t count = 0;
};

struct BunkerObservation {
  std::string bunker_id;
  uint32_t incarnation = 0;
  BunkerStatus status = BunkerStatus::kProvisioning;
  std::string status_reason;   // a code
  std::string status_message;  // for people
  std::string isolation;
  std::string start_kind;
  std::string fallback_reason;
  BunkerTimings timings;  // queue_ms and place_ms are the controller's own
  std::optional<absl::Time> last_activity_at;
  uint32_t active_execs = 0;
  std::string private_ip;
  std::vector<NetworkEvent> network_events;  // newest first
  bool disk_kept = false;  // of one that has ended: its disk is still there
  std::optional<BunkerUsage> usage;
  std::optional<MainStatus> main;
};

struct ScanObservation {
  std::string image_id;
  uint64_t generation = 0;
  std::string output_zstd;  // a bunker.scan.v1.ScanOutput; "": it failed
  std::string error_message;
};

struct SnapshotObservation {
  enum class Status { kReady, kFailed, kGone };
  std::string snapshot_id;
  Status status = Status::kGone;
  uint64_t size_bytes = 0;
  std::string error_code;
  std::string error_message;
};

struct ObservedRow {
  std::string name;
  uint64_t version = 0;
  std::variant<ImageObservation, BunkerObservation, DiskObservation, ScanObservation,
               SnapshotObservation>
      row;
};

}  // namespace bunker::controller
