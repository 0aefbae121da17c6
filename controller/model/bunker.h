// A bunker: one microVM's life, from the request to its end.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "controller/model/enum_names.h"
#include "controller/model/worker.h"

namespace bunker::controller {

enum class BunkerStatus {
  kPending, kProvisioning, kRunning, kPaused, kStopping, kStopped, kFailed
};
inline constexpr EnumName<BunkerStatus> kBunkerStatusNames[] = {
    {BunkerStatus::kPending, "pending"},   {BunkerStatus::kProvisioning, "provisioning"},
    {BunkerStatus::kRunning, "running"},   {BunkerStatus::kPaused, "paused"},
    {BunkerStatus::kStopping, "stopping"}, {BunkerStatus::kStopped, "stopped"},
    {BunkerStatus::kFailed, "failed"}};
inline std::span<const EnumName<BunkerStatus>> EnumNames(BunkerStatus) {
  return kBunkerStatusNames;
}

enum class LifecycleMode { kEphemeral, kSession, kPersistent };
inline constexpr EnumName<LifecycleMode> kLifecycleModeNames[] = {
    {LifecycleMode::kEphemeral, "ephemeral"},
    {LifecycleMode::kSession, "session"},
    {LifecycleMode::kPersistent, "persistent"}};
inline std::span<const EnumName<LifecycleMode>> EnumNames(LifecycleMode) {
  return kLifecycleModeNames;
}

enum class NetworkProfile { kIsolated, kRegistry, kAllowlisted, kUnrestricted, kTransit };
inline constexpr EnumName<NetworkProfile> kNetworkProfileNames[] = {
    {NetworkProfile::kIsolated, "isolated"},
    {NetworkProfile::kRegistry, "registry"},
    {NetworkProfile::kAllowlisted, "allowlisted"},
    {NetworkProfile::kUnrestricted, "unrestricted"},
    {NetworkProfile::kTransit, "transit"}};
inline std::span<const EnumName<NetworkProfile>> EnumNames(NetworkProfile) {
  return kNetworkProfileNames;
}

// Whether `from` → `to` is legal within one incarnation (staying is). States never go backwards.
bool CanAdvance(BunkerStatus from, BunkerStatus to);

struct BunkerTimings {
  double queue_ms = 0;
  double place_ms = 0;
  double fetch_ms = 0;
  double boot_ms = 0;
  double agent_ms = 0;
  double first_exec_ms = 0;
  bool operator==(const BunkerTimings&) const = default;
};

struct Bunker {
  std::string id;  // bnk_…
  std::string name;
  std::string tenant_id;
  std::string partner_id;  // the tenant's, when it was created
  std::string owner;       // the user
  LifecycleMode lifecycle_mode = LifecycleMode::kEphemeral;
  NetworkProfile network_profile = NetworkProfile::kIsolated;
  std::vector<std::string> network_allowlist;
  uint32_t bandwidth_mbit = 0;  // 0: no limit
  uint32_t cpu_millicores = 0;
  uint32_t memory_mb = 0;
  uint32_t disk_mb = 0;
  uint64_t max_lifetime_s = 0;   // 0: none
  uint64_t idle_timeout_s = 0;   // 0: none
  std::string session_type = "standalone";
  std::string session_ref;
  std::map<std::string, std::string> label_set;
  std::map<std::string, std::string> worker_labels;
  std::map<std::string, std::string> env_vars;

  BunkerStatus status = BunkerStatus::kPending;
  std::string status_reason;  // "" or a code: WORKER_OFFLINE, WORKER_LOST, IDLE_TIMEOUT, …
  std::string status_message;  // for people; what the agent said of a failure
  uint32_t incarnation = 1;

  std::string worker_id;
  std::string image_id;
  std::string image_name;
  std::string image_digest;  // manifest digest; empty until the image is resolved (lazy_pull)
  std::string start_kind;    // cold
  std::string fallback_reason;
  std::string isolation;  // kvm | tcg, once it runs
  std::string private_ip;  // unique on its worker; "": no network card
  BunkerTimings timings;

  // The worker is to hold a row for it; false once it confirmed the end.
  bool assigned = false;
  uint64_t assignment_version = 0;
  uint64_t observation_version = 0;
  bool stop_wanted = false;  // the row says STOPPED
  // Its cpu, memory and disk are taken on the worker: from placement until the worker says that
  // the VM is gone.
  bool room_held = false;

  absl::Time created_at;
  absl::Time updated_at;
  std::optional<absl::Time> started_at;
  std::optional<absl::Time> expires_at;
  std::optional<absl::Time> stopping_at;
  std::optional<absl::Time> boot_since;  // when the image was there and the boot could begin
  absl::Time last_activity_at;           // newest exec that the agent told of
  uint32_t active_execs = 0;             // as the agent told
  std::optional<absl::Time> terminated_at;  // set: final

  bool live() const { return !terminated_at.has_value(); }
  // What it takes from a worker, the VM's own overhead included.
  Resources footprint() const;
};

// What each VM takes beside its guest's memory.
inline constexpr uint64_t kVmOverheadMb = 96;

// Moves the bunker within its incarnation. REQUIRES: CanAdvance(bunker.status, to), live.
void Advance(Bunker& bunker, BunkerStatus to, absl::Time now);

// Ends it for good: `to` is kStopped or kFailed; sets terminated_at. REQUIRES: as Advance().
void Terminate(Bunker& bunker, BunkerStatus to, std::string reason, absl::Time now);

}  // namespace bunker::controller
