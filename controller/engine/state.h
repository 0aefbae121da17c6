// What the engine holds: tables, the indexes that follow them, and what is not worth a row.
// Private to the engine's own files.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "common/base/id.h"
#include "common/sync/sync_types.h"
#include "controller/engine/account_index.h"
#include "controller/engine/bunker_index.h"
#include "controller/engine/due_queue.h"
#include "controller/engine/engine.h"
#include "controller/engine/multi_index.h"
#include "controller/engine/scans.h"
#include "controller/engine/table.h"
#include "controller/engine/tallies.h"
#include "controller/engine/work_queue.h"
#include "controller/model/bridge.h"
#include "controller/model/snapshot.h"
#include "controller/policy/cache_room.h"
#include "controller/policy/fanout.h"
#include "controller/policy/lifetimes.h"
#include "controller/policy/liveness.h"
#include "controller/policy/placement_index.h"
#include "controller/policy/quota.h"

namespace bunker::controller {

// Whether a bunker may be placed onto the cached file as it is.
inline bool IsPlaceable(const CacheEntry& entry) {
  return entry.assigned && entry.status == CacheStatus::kReady;
}

// Meta: changes of cache rows below it may have been forgotten, for their rows are.
inline constexpr char kCacheFloor[] = "cache_floor";
// The same of bunkers.
inline constexpr char kBunkerFloor[] = "bunker_floor";

// The part of a name's key that says whose it is.
std::string OwnerKey(const Ownership& ownership);

struct Engine::State {
  State(EngineOptions engine_options, Rng& source);
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  // ---- indexers, called by the tables ---------------------------------------------------------
  void IndexImage(const Image* before, const Image* after);
  void IndexGroup(const Group* before, const Group* after);
  void IndexWorker(const Worker* before, const Worker* after);
  void IndexEntry(const CacheEntry* before, const CacheEntry* after);
  void IndexBunker(const Bunker* before, const Bunker* after);
  // cache_index.cc: what a change may mean for the cache rows, and those rows themselves.
  void MarkImage(const Image* before, const Image* after);
  void MarkGroup(const Group* before, const Group* after);
  void MarkWorker(const Worker* before, const Worker* after);
  void IndexWork(const CacheEntry* before, const CacheEntry* after);
  void IndexTurn(const CacheEntry& entry, bool added);
  void IndexFile(const CacheEntry& entry, bool added);
  void IndexMember(const User* before, const User* after);
  void IndexQuotaProfile(const QuotaProfile* before, const QuotaProfile* after);
  void IndexQuotaAssignment(const QuotaAssignment* before, const QuotaAssignment* after);
  // "" where there is no such group.
  std::string TenantOfUserGroup(const std::string& group_id) const;
  // Where the sums that are kept differ from the rows, "" where they don't. Slow.
  std::string IndexDifference() const;
  // What the bunker takes of its worker and of the quotas.
  void IndexRoom(const Bunker* before, const Bunker* after);
  void IndexScan(const ScanReport* before, const ScanReport* after);
  void IndexBridge(const Bridge* before, const Bridge* after);
  // Bridges, and the names on them, of live bunkers.
  void IndexInterfaces(const Bunker& bunker, bool added);
  void IndexSnapshot(const Snapshot* before, const Snapshot* after);

  // ---- look-ups -------------------------------------------------------------------------------
  // What the group holds, by `auto_images` too, whether or not it is active.
  std::set<std::string> ImagesOf(const Group& group) const;
  // The worker's cache, as policy/cache_room wants it.
  CacheState CacheOf(const Worker& worker, absl::Time now) const;
  Pin PinOf(const CacheEntry& entry, absl::Time now) const;
  // Groups that hold the image, `auto_images` ones included.
  std::vector<const Group*> GroupsHolding(const Image& image) const;
  std::map<std::string, const Worker*> WorkersOf(const std::vector<const Group*>& groups) const;
  // Of the groups that hold the image, those that the tenant may use.
  std::vector<std::string> GroupIdsHolding(const Image& image, const Ownership& tenant) const;
  uint64_t NextVersion() { return versions->Next(); }
  std::string MakeId(std::string_view prefix, absl::Time now) { return NewId(prefix, now, rng); }

  const EngineOptions options;
  Rng& rng;
  absl::Time started_at = absl::InfinitePast();
  absl::Time last_sweep = absl::InfinitePast();
  std::optional<VersionCounter> versions;

  // ---- tables ---------------------------------------------------------------------------------
  Table<MetaRow> meta;
  Table<Partner> partners;
  Table<Tenant> tenants;
  Table<User> users;
  Table<UserGroup> user_groups;
  Table<ApiKey> api_keys;
  Table<JoinToken> join_tokens;
  Table<Worker> workers;
  Table<Image> images;
  Table<Group> groups;
  Table<CacheEntry> entries;
  Table<Bunker> bunkers;
  Table<IdempotencyRecord> idempotency;
  Table<RegistryCredential> credentials;
  Table<QuotaProfile> quota_profiles;
  Table<QuotaAssignment> quota_assignments;
  Table<ScanReport> scan_reports;
  DocumentTable scan_documents;
  Table<Snapshot> snapshots;
  Table<Bridge> bridges;
  Table<DesiredRow> desired;  // derived: from entries, bunkers, and orphans that a worker showed

  // ---- indexes --------------------------------------------------------------------------------
  AccountIndex account_index;
  std::map<std::string, std::string> token_by_sha256;
  std::map<std::string, std::string> image_by_name;   // "<owner key>/<name>"
  std::map<std::string, std::string> image_by_swr_path;  // "<owner key>/<canonical path>"
  std::map<std::string, std::string> group_by_name;   // "<owner key>/<name>"
  std::map<std::string, std::string> worker_by_name;  // "<owner key>/<name>"
  std::map<std::string, std::string> worker_by_credential;
  absl::flat_hash_map<std::string, std::string> bunker_by_name;  // "<tenant>/<name>", live ones
  std::map<std::string, std::string> credential_by_name;  // "<owner key>/<name>"
  MultiIndex credentials_of_owner;
  MultiIndex images_of_credential;  // active ones
  std::map<std::string, std::string> bridge_by_name;  // "<owner key>/<name>"
  MultiIndex bridges_of_owner;
  MultiIndex bunkers_of_bridge;                            // live ones
  std::map<std::string, std::string> bunker_of_link_name;  // "<bridge>/<MAC or address>"; live
  MultiIndex images_of_repository;  // "<owner key> <repository without host>"
  std::set<std::pair<absl::Time, std::string>> tag_checks;  // of active images with a tag
  MultiIndex images_of_owner;
  MultiIndex groups_of_owner;
  MultiIndex groups_of_image;
  MultiIndex groups_of_owned_image;  // "<owner key>/<image>", the group's owner
  MultiIndex groups_of_worker;
  MultiIndex auto_groups_of_owner;
  MultiIndex workers_of_image;  // that have an entry
  MultiIndex images_of_worker;
  BunkerIndex bunker_index;
  absl::btree_map<uint64_t, BunkerIndex::Key> bunker_changes;  // by Bunker::change_id
  MultiIndex bunkers_of_worker;  // live, or still on the worker
  std::map<std::string, uint64_t> idempotency_of_tenant;
  std::set<std::string> unresolved_images;  // active ones
  std::set<std::string> failed_entries;     // that have a retry_at
  DueQueue worker_looks;                    // liveness
  DueQueue bunker_looks;  // of live ones: lifetimes, boots and stops that take too long
  std::set<std::string> draining_workers;
  MultiIndex live_of_tenant;  // bunkers
  // By entry key: the bunkers, scans and snapshots that need it.
  absl::flat_hash_map<std::string, uint64_t> uses_of_entry;
  std::set<std::string> open_scans;               // waiting or scanning
  MultiIndex scans_of_worker;                     // open ones
  std::map<std::string, std::string> snapshot_by_name;  // "<tenant>/<name>"
  MultiIndex snapshots_of_tenant;
  std::map<std::string, uint64_t> snapshot_bytes_of_tenant;  // as charged
  std::map<std::string, uint64_t> snapshot_bytes_of_worker;
  MultiIndex snapshots_of_worker;                         // assigned ones
  MultiIndex snapshots_of_entry;                          // by entry key: those that are kept
  std::set<std::string> open_snapshots;                   // the worker has still to do something
  std::map<std::string, std::string> creating_of_bunker;  // the snapshot that is being taken
  MultiIndex bunkers_of_snapshot;                         // that await their disk of it
  std::map<std::string, std::string> quota_profile_by_name;  // "<owner key>/<name>"
  MultiIndex quota_profiles_of_owner;
  MultiIndex assignments_of_profile;
  std::map<std::string, std::string> assignment_of_target;  // "user:<id>", "group:<id>"
  QuotaIndex quota_index;                                   // what the bunkers count for
  PlacementIndex placement;  // what is taken on each worker, and who may go there
  std::map<std::string, std::string> registry_of_image;  // host; "" for a file
  MultiIndex no_room_of_worker;                          // images left out for lack of room
  std::set<std::string> open_entries;                    // assigned, and not made yet
  std::set<std::string> loose_entries;                   // something is there that no group wants
  std::set<std::string> retired_entries;                 // evicted, unwanted, and nothing left
  Tallies tallies;
  WorkQueue queue;
  struct DiskUse {
    struct File {
      uint64_t bytes = 0;
      uint32_t rows = 0;  // images of equal layers share one file
    };
    std::map<std::string, File> files;  // by recipe, or image where it is not known
    uint64_t file_bytes = 0;
    uint64_t reserved_bytes = 0;  // for what is being made
  };
  std::map<std::string, DiskUse> disk_use;  // by worker

  // ---- changed since the last Settle(): marks, which a rollback may leave standing ------------
  std::set<std::string> dirty_images;
  std::set<std::string> dirty_workers;
  std::set<std::pair<std::string, std::string>> dirty_pairs;  // image, worker
  std::set<std::string> room_changed;                         // workers
  std::set<std::string> let_go;                               // entries that a bunker used
  bool entries_erased = false;

  // ---- what lives as long as the process ------------------------------------------------------
  struct Session {
    absl::Time last_heartbeat = absl::InfinitePast();
    bool connected = false;
  };
  struct Activity {
    absl::Time last = absl::InfinitePast();
    uint32_t open = 0;
  };
  // How far the sweep has come through these tables; nothing: it is done until the next one.
  std::optional<std::string> swept_bunkers;
  std::optional<std::string> swept_idempotency;
  std::map<std::string, Session> sessions;     // by worker
  std::map<std::string, Activity> activities;  // by bunker
  // By bunker, newest first; not worth a row: their workers tell again.
  std::map<std::string, std::vector<NetworkEvent>> network_events;
};

// The one message for what is missing and for what may not be seen.
absl::Status NotFound(std::string_view noun, std::string_view ref);
absl::Status Denied(std::string_view what, std::string_view remedy);
absl::Status Invalid(std::string_view message);

// Whether the caller may change what `owner` owns (given that it sees it).
bool MayChange(const Caller& caller, const Ownership& owner);

// The owner of what `caller` makes at `scope`, or AUTHZ_PERMISSION_DENIED.
absl::StatusOr<Ownership> OwnershipFor(const Caller& caller, Scope scope);

}  // namespace bunker::controller
