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

// What the tenant wants of a live one; the worker's part is to make it so.
enum class BunkerGoal { kRun, kPause, kStop };
inline constexpr EnumName<BunkerGoal> kBunkerGoalNames[] = {{BunkerGoal::kRun, "run"},
                                                            {BunkerGoal::kPause, "pause"},
                                                            {BunkerGoal::kStop, "stop"}};
inline std::span<const EnumName<BunkerGoal>> EnumNames(BunkerGoal) {
  return kBunkerGoalNames;
}

// What becomes of one that nobody uses.
enum class OnIdle { kStop, kPause };
inline constexpr EnumName<OnIdle> kOnIdleNames[] = {{OnIdle::kStop, "stop"},
                                                    {OnIdle::kPause, "pause"}};
inline std::span<const EnumName<OnIdle>> EnumNames(OnIdle) {
  return kOnIdleNames;
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

enum class MainRestart { kNever, kOnFailure, kAlways };
inline constexpr EnumName<MainRestart> kMainRestartNames[] = {
    {MainRestart::kNever, "never"},
    {MainRestart::kOnFailure, "on_failure"},
    {MainRestart::kAlways, "always"}};
inline std::span<const EnumName<MainRestart>> EnumNames(MainRestart) {
  return kMainRestartNames;
}

// The image's own command, as the tenant wants it.
struct MainProgram {
  std::vector<std::string> args;  // in place of the image's cmd; empty: that
  std::map<std::string, std::string> env;
  MainRestart restart = MainRestart::kNever;
  bool allow_root = false;  // who created the bunker may be root
  bool operator==(const MainProgram&) const = default;
};

enum class MainState { kStarting, kRunning, kWaiting, kExited, kFailed };
inline constexpr EnumName<MainState> kMainStateNames[] = {{MainState::kStarting, "starting"},
                                                          {MainState::kRunning, "running"},
                                                          {MainState::kWaiting, "waiting"},
                                                          {MainState::kExited, "exited"},
                                                          {MainState::kFailed, "failed"}};
inline std::span<const EnumName<MainState>> EnumNames(MainState) {
  return kMainStateNames;
}

// What its worker tells of it.
struct MainStatus {
  MainState state = MainState::kStarting;
  bool ended = false;  // at least once: the next two are of its last end
  int32_t exit_code = 0;
  std::string signal;  // "": it exited
  uint32_t restarts = 0;
  std::string message;  // for people: why it can't be run
  bool operator==(const MainStatus&) const = default;
};

// Whether `from` → `to` is legal within one incarnation (staying is). States never go backwards;
// what is stopped or failed and not final may only be ended.
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

// What a bunker was measured to take, by its worker.
struct BunkerUsage {
  double cpu_s = 0;
  uint64_t rss_bytes = 0;
  uint64_t disk_bytes = 0;  // of its private disk
  absl::Time at = absl::UnixEpoch();
  uint64_t net_rx_bytes = 0;  // as the guest counts, since its VM began; the next too
  uint64_t net_tx_bytes = 0;
  bool operator==(const BunkerUsage&) const = default;
};

// One card of a bunker of the profile transit.
struct BunkerInterface {
  std::string if_name;      // in the guest
  std::string bridge_name;  // on the host
  std::string bridge_id;    // the registration that allows it
  bool spoof_guard = true;
  std::string mac;      // in lower case; of a request: "" = one that is made up
  std::string ipv4;     // "address/bits"; "": none
  std::string gateway;  // "": no default route
  bool operator==(const BunkerInterface&) const = default;

  // What nobody else on the same bridge may call itself; "" where it has none.
  std::string MacKey() const { return mac.empty() ? "" : bridge_id + "/" + mac; }
  std::string AddressKey() const {
    return ipv4.empty() ? "" : bridge_id + "/" + ipv4.substr(0, ipv4.find('/'));
  }
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
  std::vector<BunkerInterface> interfaces;  // of the profile transit
  uint32_t bandwidth_mbit = 0;  // 0: no limit, as the next two
  uint64_t disk_bytes_per_s = 0;
  uint32_t disk_iops = 0;
  uint32_t cpu_millicores = 0;
  uint32_t memory_mb = 0;
  uint32_t disk_mb = 0;
  uint64_t max_lifetime_s = 0;   // 0: none
  uint64_t idle_timeout_s = 0;   // 0: none
  OnIdle on_idle = OnIdle::kStop;
  std::string session_type = "standalone";
  std::string session_ref;
  std::map<std::string, std::string> label_set;
  std::map<std::string, std::string> worker_labels;
  std::map<std::string, std::string> env_vars;
  std::optional<MainProgram> main;  // nothing: PID 1 alone runs by itself
  std::optional<MainStatus> main_status;

  BunkerStatus status = BunkerStatus::kPending;
  std::string status_reason;  // "" or a code: WORKER_OFFLINE, WORKER_LOST, IDLE_TIMEOUT, …
  std::string status_message;  // for people; what the agent said of a failure
  uint32_t incarnation = 1;

  std::string worker_id;
  std::string image_id;
  std::string image_name;
  std::string image_digest;  // manifest digest; empty until the image is resolved (lazy_pull)
  std::string snapshot_id;   // that its disk begins as a copy of; "": it begins empty
  bool snapshot_memory = false;  // and its first start goes on with the memory of it
  std::string final_snapshot_id;  // once that is ready it is to end
  std::string start_kind;    // restore | pool | cold
  std::string fallback_reason;
  std::string isolation;  // kvm | tcg, once it runs
  std::string private_ip;  // unique on its worker; "": no network card
  BunkerTimings timings;

  // The worker is to hold a row for it; false once it confirmed the end.
  bool assigned = false;
  uint64_t assignment_version = 0;
  uint64_t observation_version = 0;
  bool stop_wanted = false;  // the row says STOPPED, for good: its disk goes as well
  BunkerGoal goal = BunkerGoal::kRun;
  // The worker has its disk and no VM, so that it takes disk alone.
  bool halted = false;
  bool disk_made = false;  // it has run: a start without the disk of before would lose data
  // Its cpu, memory and disk are taken on the worker: from placement until the worker says that
  // the VM is gone.
  bool room_held = false;

  absl::Time created_at;
  absl::Time updated_at;
  std::optional<absl::Time> started_at;
  std::optional<absl::Time> expires_at;
  std::optional<absl::Time> stopping_at;
  std::optional<absl::Time> boot_since;  // when the image was there and the boot could begin
  // Newest exec that the agent told of; until it runs, when this incarnation was asked for.
  absl::Time last_activity_at;
  uint32_t active_execs = 0;             // as the agent told
  std::optional<absl::Time> terminated_at;  // set: final
  std::optional<BunkerUsage> usage;
  uint64_t change_id = 0;  // of its last change; grows over all bunkers

  bool live() const { return !terminated_at.has_value(); }
  // Whether its disk outlives its VM.
  bool keeps_disk() const { return lifecycle_mode != LifecycleMode::kEphemeral; }
  // Its VM is up, and the worker has still to pause it, or to let it go on.
  bool IsSwitching() const {
    return (status == BunkerStatus::kRunning && goal == BunkerGoal::kPause) ||
           (status == BunkerStatus::kPaused && goal == BunkerGoal::kRun);
  }
  // Whether its disk has still to be made, of its snapshot if it has one.
  bool awaits_disk() const {
    return live() && !stop_wanted && !(keeps_disk() ? disk_made : started_at.has_value());
  }
  // What it takes from a worker, the VM's own overhead included.
  Resources footprint() const;
};

// What each VM takes beside its guest's memory.
inline constexpr uint64_t kVmOverheadMb = 96;

// Moves the bunker within its incarnation. REQUIRES: CanAdvance(bunker.status, to), live.
void Advance(Bunker& bunker, BunkerStatus to, absl::Time now);

// Ends it for good: `to` is kStopped or kFailed; sets terminated_at. REQUIRES: as Advance().
void Terminate(Bunker& bunker, BunkerStatus to, std::string reason, absl::Time now);

// Its next life: provisioning anew, of the next incarnation, with the room of a whole bunker.
// REQUIRES: live, and not to be ended (stop_wanted).
void BeginIncarnation(Bunker& bunker, absl::Time now);

}  // namespace bunker::controller
