// What the engine's calls take and give, beside the rows themselves.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "controller/engine/change_set.h"
#include "controller/engine/work_queue.h"
#include "controller/policy/placement.h"
#include "controller/policy/placement_index.h"

namespace bunker::controller {

// Which images no bunker may be made of: none, those whose scan failed, and also those that no scan
// has passed yet.
enum class ScanGate { kOff, kFailed, kUnscanned };

struct ScanSettings {
  // Of looking for images that are due; infinite: on demand alone.
  absl::Duration period = absl::InfiniteDuration();
  absl::Duration max_age = absl::Hours(24);       // of a scan; then the image is due again
  absl::Duration wait_deadline = absl::Hours(1);  // for a worker to hold the image
  absl::Duration deadline = absl::Minutes(15);    // for that worker to answer
  bool unknown_fails = true;                      // vulnerabilities of unknown severity
  ScanGate gate = ScanGate::kOff;
};

// The operator's settings that the engine needs.
struct EngineOptions {
  ScanSettings scan;
  PlacementOptions placement;
  absl::Duration offline_after = absl::Seconds(30);
  absl::Duration lost_after = absl::Seconds(300);
  absl::Duration sweep_period = absl::Minutes(2);
  absl::Duration boot_deadline = absl::Seconds(120);  // given to the agent; counted from the image
  absl::Duration boot_slack = absl::Seconds(60);      // the controller waits this much longer
  absl::Duration fetch_deadline = absl::Minutes(60);  // lazy_pull: for the image to get there
  absl::Duration stop_resend = absl::Seconds(60);     // a stop that is not confirmed is told again
  absl::Duration retry_base = absl::Seconds(10);      // of a failed bake; doubles
  absl::Duration retry_max = absl::Minutes(5);
  absl::Duration tag_check_period = absl::Hours(6);  // a tag is looked up so often, by one worker
  size_t tag_checks_per_tick = 16;
  size_t max_credentials_per_tenant = 1000;
  size_t max_bridges_per_tenant = 1000;
  size_t max_snapshots_per_tenant = 100;  // failed ones too, until they are deleted
  uint64_t max_snapshot_bytes_per_tenant = uint64_t{100} << 30;
  absl::Duration snapshot_deadline = absl::Minutes(10);  // from asking to ready
  WorkLimits work_limits;                               // of images being made at once
  absl::Duration pending_deadline = absl::Minutes(10);  // given to a worker, and not begun
  absl::Duration stall_deadline = absl::Minutes(15);    // begun, and no progress
  absl::Duration cache_keep = absl::Minutes(10);  // lazy_pull: used so recently, it is not evicted
  absl::Duration evicted_retention = absl::Hours(24);       // of rows that say evicted
  absl::Duration finished_retention = absl::Hours(24 * 7);  // of ended bunkers' rows
  uint32_t max_key_rate_per_s = 100;  // what keys may be given that no platform admin makes
  size_t max_images_per_tenant = 10000;
  size_t max_groups_per_tenant = 1000;
  size_t max_live_bunkers_per_tenant = 100000;
  size_t max_idempotency_records_per_tenant = 100000;
};

// A page of a list: newest first, by id. `after_id`: the last id of the page before; "" = first.
// Inserts never shift a page. The API makes its opaque cursors of it.
struct PageSpec {
  uint32_t limit = 50;
  std::string after_id;
};
template <typename T>
struct Page {
  std::vector<RowPtr<T>> rows;
  bool has_more = false;  // then the next after_id is rows.back()'s id
  // Of a list whose pages may be short though more follows (bunkers): the next after_id.
  std::string last_id;
};

struct RegisterImageSpec {
  std::string name;
  std::string display_name;
  std::string description;
  BuildSource build_source;
  uint32_t size_mib = 0;
  uint32_t default_cpu_millicores = 1000;
  uint32_t default_memory_mb = 512;
  uint32_t default_disk_mb = 1024;
  Scope scope = Scope::kTenant;
  bool lazy_pull = false;
  std::vector<std::string> preinstalled;
  Arch arch = Arch::kUnspecified;
  std::vector<std::string> resource_category = {"CPU"};
  std::optional<ModelArtsFields> modelarts;
  std::string pull_secret;  // the name of a registry credential; "" = none
};

// What is not given stays as it is.
struct UpdateImageSpec {
  std::optional<std::string> display_name;
  std::optional<std::string> description;
  std::optional<uint32_t> default_cpu_millicores;
  std::optional<uint32_t> default_memory_mb;
  std::optional<uint32_t> default_disk_mb;
  std::optional<bool> lazy_pull;
  std::optional<std::vector<std::string>> preinstalled;
  std::optional<std::string> pull_secret;  // "" = none any more
};

struct ImageFilter {
  std::string name;  // "" = any
  std::optional<Scope> scope;
  std::optional<bool> active;
  std::optional<ScanStatus> scan_status;
  std::set<std::string> uuids;  // as ids; empty = any
  std::string digest;           // sha256:<12+ hex>
  std::string tag;
};

// Of the workers in scope; they sum to their number. queued = pending + building.
struct WarmSummary {
  uint32_t queued = 0;
  uint32_t ready = 0;
  uint32_t failed = 0;
  uint32_t skipped = 0;
  bool operator==(const WarmSummary&) const = default;
};

struct CacheSummary {
  uint32_t pending = 0;
  uint32_t building = 0;
  uint32_t ready = 0;
  uint32_t failed = 0;
  uint32_t evicted = 0;
  bool operator==(const CacheSummary&) const = default;
};

struct ImageView {
  RowPtr<Image> image;
  CacheSummary cache_summary;
};

// A row of an image's cache view.
struct CacheView {
  RowPtr<CacheEntry> entry;
  std::string worker_name;
};

// What changed of an image's cache view.
struct CacheDelta {
  bool complete = true;  // all rows; false: what changed alone
  std::vector<CacheView> rows;
  std::vector<std::string> removed;  // workers that have no row any more; not where complete
  uint64_t upto = 0;                 // to go on from
};

struct PatchGroupSpec {
  std::optional<std::string> name;
  std::optional<std::string> description;
  std::optional<bool> auto_images;
};

// Ids or names.
struct GroupChange {
  std::vector<std::string> add_images;
  std::vector<std::string> remove_images;
  std::vector<std::string> add_workers;
  std::vector<std::string> remove_workers;
};

enum class PlanAction { kPull, kEvict, kKeep, kSkip };
inline constexpr EnumName<PlanAction> kPlanActionNames[] = {{PlanAction::kPull, "pull"},
                                                            {PlanAction::kEvict, "evict"},
                                                            {PlanAction::kKeep, "keep"},
                                                            {PlanAction::kSkip, "skip"}};
inline std::span<const EnumName<PlanAction>> EnumNames(PlanAction) {
  return kPlanActionNames;
}

struct PlanRow {
  RowPtr<Worker> worker;
  RowPtr<Image> image;
  PlanAction action = PlanAction::kKeep;
  uint64_t bytes = 0;  // pulled, freed or kept; 0 where nothing is known yet
  std::string reason;
};
// By image, then by worker.
struct GroupPlan {
  std::vector<PlanRow> rows;  // of the workers that the caller may see
};

struct CollectRow {
  RowPtr<Image> image;
  uint64_t bytes = 0;  // that go with it: 0 where another image shares the file
  absl::Time last_used_at;
  std::string reason;
};
struct CollectReport {
  std::vector<CollectRow> evicted;  // or to be; least recently used first
  std::vector<CollectRow> pinned;
};

struct CreateGroupSpec {
  std::string name;
  std::string description;
  Scope scope = Scope::kTenant;
  bool auto_images = false;
};

struct WorkerView {
  RowPtr<Worker> worker;
  absl::Time last_heartbeat;  // live
  Resources allocated;        // by bunkers
  Resources room;             // capacity × overcommit less reserves: what bunkers may take in all
  std::vector<std::string> cached_image_ids;  // ready ones that the caller may see
  // A tenant sees no amounts of a shared worker: the API leaves capacity and allocated out.
  bool amounts_visible = true;
};

struct CreateBunkerSpec {
  std::string image;     // any spelling of a reference
  std::string snapshot;  // in place of image: an id or name; "" = none
  bool snapshot_memory = false;    // as the next, the engine's to fill in
  std::string snapshot_worker_id;  // that has it; the engine's to fill in
  std::string name;   // "" = <image>-<5 characters>
  LifecycleMode lifecycle_mode = LifecycleMode::kEphemeral;
  NetworkProfile network_profile = NetworkProfile::kIsolated;
  std::vector<std::string> network_allowlist;
  std::vector<BunkerInterface> interfaces;  // of the profile transit; bridge_id is the engine's
  uint32_t bandwidth_mbit = 0;             // 0: no limit, as the next two
  uint64_t disk_bytes_per_s = 0;
  uint32_t disk_iops = 0;
  std::optional<uint32_t> cpu_millicores;  // nothing = the image's default
  std::optional<uint32_t> memory_mb;
  std::optional<uint32_t> disk_mb;
  std::optional<uint64_t> max_lifetime_s;  // nothing = the mode's default
  std::optional<uint64_t> idle_timeout_s;
  OnIdle on_idle = OnIdle::kStop;
  bool start = true;  // false: stopped, with the place for it checked but only disk taken
  std::string session_type = "standalone";
  std::string session_ref;
  std::map<std::string, std::string> label_set;
  std::map<std::string, std::string> worker_labels;
  std::map<std::string, std::string> env_vars;
  std::optional<MainProgram> main;
  uint32_t gpu_count = 0;
  std::string gpu_type;
  std::optional<uint32_t> replicas;               // further copies beside the first, ≤ 100
  absl::Time received_at = absl::InfinitePast();  // by the server; for timings.queue_ms
};

// What is not given stays as it is.
struct UpdateBunkerSpec {
  std::optional<std::string> name;
  std::optional<std::map<std::string, std::string>> label_set;
  std::optional<uint64_t> idle_timeout_s;
  std::optional<uint64_t> max_lifetime_s;  // counted from the creation, as ever
};

struct BunkerFilter {
  std::set<BunkerStatus> statuses;  // empty = any
  std::optional<LifecycleMode> lifecycle;
  std::map<std::string, std::string> labels;
};

// What changed of the bunkers that somebody sees.
struct BunkerDelta {
  bool complete = true;  // all live ones; false: what changed alone, those that have ended too
  std::vector<RowPtr<Bunker>> rows;  // oldest change first
  uint64_t upto = 0;                 // to go on from
};

struct CreateJoinTokenSpec {
  std::string worker_name;
  std::string sha256;  // of the token, which the engine never sees
  Ownership ownership = {Scope::kPlatform, "", ""};
  bool shared = true;
  std::map<std::string, std::string> labels;
  absl::Duration ttl = absl::Minutes(10);  // ≤ 10 min
};

// What the link needs when an agent has said hello.
struct WorkerSession {
  RowPtr<Worker> worker;
  std::vector<DesiredRowPtr> desired;           // all rows it is to have
  std::map<std::string, uint64_t> observations_held;  // name → version
};

struct AuthResult {
  RowPtr<ApiKey> key;
  RowPtr<User> user;
  RowPtr<Tenant> tenant;
  RowPtr<Partner> partner;
  // What the key acts with: the user's role and permissions (the role's, its own, its groups'),
  // as far as the key's own bounds go.
  Role role = Role::kTenantViewer;
  std::set<std::string> permissions;
};

}  // namespace bunker::controller
