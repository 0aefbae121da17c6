// A worker: a host with an agent on it. And the token with which one joins.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <set>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "controller/model/enum_names.h"
#include "controller/model/image.h"
#include "controller/model/scope.h"

namespace bunker::controller {

enum class WorkerStatus { kOffline, kOnline, kDraining };
inline constexpr EnumName<WorkerStatus> kWorkerStatusNames[] = {
    {WorkerStatus::kOffline, "offline"},
    {WorkerStatus::kOnline, "online"},
    {WorkerStatus::kDraining, "draining"}};
inline std::span<const EnumName<WorkerStatus>> EnumNames(WorkerStatus) {
  return kWorkerStatusNames;
}

// What happens at a drain's deadline to the bunkers that are still there.
enum class DrainThen { kWait, kStop };
inline constexpr EnumName<DrainThen> kDrainThenNames[] = {{DrainThen::kWait, "wait"},
                                                          {DrainThen::kStop, "stop"}};
inline std::span<const EnumName<DrainThen>> EnumNames(DrainThen) {
  return kDrainThenNames;
}

// What a worker can hold; of a request: what it takes.
struct Resources {
  uint64_t cpu_millicores = 0;
  uint64_t memory_mb = 0;
  uint64_t disk_mb = 0;
  bool operator==(const Resources&) const = default;
  Resources& operator+=(const Resources& other);
  // REQUIRES: no component of `other` is larger.
  Resources& operator-=(const Resources& other);
};

// The disk as the agent sees it: its own files, and the bounds between which it keeps them. All 0
// until it has told.
struct WorkerDisk {
  uint64_t capacity_bytes = 0;  // what is the agent's and what it could still take
  uint64_t used_bytes = 0;      // by all of its files, VM disks included
  uint64_t cache_bytes = 0;     // of that: baked images and blobs
  uint64_t high_bytes = 0;      // above it the agent drops what it may
  uint64_t low_bytes = 0;       // down to here
  bool operator==(const WorkerDisk&) const = default;
};

// What the agent says of its host; the operator's caps are applied there.
struct WorkerFacts {
  Resources capacity;
  Arch arch = Arch::kUnspecified;
  std::string isolation;         // kvm | tcg
  std::string isolation_reason;  // why not kvm
  std::map<std::string, std::string> labels;
  std::set<std::string> network_profiles = {};  // that its agent enforces
  std::string network_reason = {};              // why not all of them
  std::set<std::string> bridges = {};           // of its host, that bunkers may attach to
  bool operator==(const WorkerFacts&) const = default;
};

struct Worker {
  std::string id;  // wrk_…
  std::string name;
  Ownership ownership;
  bool shared = false;  // platform-owned and open to all tenants

  std::string credential_sha256;  // 64 hex digits; empty: revoked
  std::string certificate_sha256;  // room for certificates; unused, empty

  WorkerStatus status = WorkerStatus::kOffline;
  bool draining = false;  // the operator's wish; survives being offline
  std::optional<absl::Time> drain_deadline;
  DrainThen drain_then = DrainThen::kWait;  // at the deadline
  absl::Time status_since;

  WorkerFacts facts;
  WorkerDisk disk;
  uint64_t disk_version = 0;  // of the observation that told it; 0: none
  std::string boot_id;  // of the host
  std::string agent_version;
  std::map<std::string, std::string> token_labels;  // given with the join token or by an operator
                                                    // since; they win over the facts'
  // As persisted: updated with other changes, not with each heartbeat. Engine::LastHeartbeat has
  // the live one.
  absl::Time last_heartbeat;
  absl::Time created_at;

  std::map<std::string, std::string> labels() const;
};

// A join token in clear, from the system's generator. It is shown once and stored as its SHA-256.
std::string NewJoinToken();

// 1…128 characters of [A-Za-z0-9._-], beginning with a letter or digit.
bool IsWorkerName(std::string_view name);

struct JoinToken {
  std::string id;      // wtk_…
  std::string sha256;  // 64 hex digits; unique
  std::string worker_name;
  Ownership ownership;
  bool shared = true;
  std::map<std::string, std::string> labels;
  absl::Time expires_at;
  std::optional<absl::Time> used_at;
  std::string worker_id;  // that it made
  absl::Time created_at;
};

}  // namespace bunker::controller
