// What the engine holds: tables, the indexes that follow them, and what is not worth a row.
// Private to the engine's own files.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/base/id.h"
#include "common/sync/sync_types.h"
#include "controller/engine/bunker_index.h"
#include "controller/engine/due_queue.h"
#include "controller/engine/engine.h"
#include "controller/engine/table.h"
#include "controller/policy/fanout.h"
#include "controller/policy/lifetimes.h"
#include "controller/policy/liveness.h"

namespace bunker::controller {

// Index: one key to many ids. Empty sets are not kept.
class MultiIndex {
 public:
  void Add(const std::string& key, const std::string& id) { ids_[key].insert(id); }
  void Remove(const std::string& key, const std::string& id) {
    const auto it = ids_.find(key);
    if (it == ids_.end()) return;
    it->second.erase(id);
    if (it->second.empty()) ids_.erase(it);
  }
  const std::set<std::string>& Of(const std::string& key) const {
    static const std::set<std::string> kNone;
    const auto it = ids_.find(key);
    return it == ids_.end() ? kNone : it->second;
  }

 private:
  std::map<std::string, std::set<std::string>> ids_;
};

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

  // ---- look-ups -------------------------------------------------------------------------------
  // Groups that hold the image, `auto_images` ones included.
  std::vector<const Group*> GroupsHolding(const Image& image) const;
  std::map<std::string, const Worker*> WorkersOf(const std::vector<const Group*>& groups) const;
  Resources AllocatedOn(const std::string& worker_id) const;
  uint64_t CachedMb(const std::string& worker_id) const;
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
  Table<ApiKey> api_keys;
  Table<JoinToken> join_tokens;
  Table<Worker> workers;
  Table<Image> images;
  Table<Group> groups;
  Table<CacheEntry> entries;
  Table<Bunker> bunkers;
  Table<IdempotencyRecord> idempotency;
  Table<DesiredRow> desired;  // derived: from entries, bunkers, and orphans that a worker showed

  // ---- indexes --------------------------------------------------------------------------------
  std::map<std::string, std::string> key_by_sha256;
  std::map<std::string, std::string> token_by_sha256;
  std::map<std::string, std::string> image_by_name;   // "<owner key>/<name>"
  std::map<std::string, std::string> image_by_swr_path;  // "<owner key>/<canonical path>"
  std::map<std::string, std::string> group_by_name;   // "<owner key>/<name>"
  std::map<std::string, std::string> worker_by_name;
  std::map<std::string, std::string> worker_by_credential;
  std::map<std::string, std::string> bunker_by_name;  // "<tenant>/<name>", live ones
  MultiIndex images_of_owner;
  MultiIndex groups_of_owner;
  MultiIndex groups_of_image;
  MultiIndex groups_of_worker;
  MultiIndex auto_groups_of_owner;
  MultiIndex workers_of_image;  // that have an entry
  MultiIndex images_of_worker;
  BunkerIndex bunker_index;
  MultiIndex bunkers_of_worker;  // live, or still on the worker
  std::map<std::string, uint64_t> idempotency_of_tenant;
  std::set<std::string> unresolved_images;  // active ones
  std::set<std::string> failed_entries;     // that have a retry_at
  DueQueue worker_looks;                    // liveness
  DueQueue bunker_looks;  // of live ones: lifetimes, boots and stops that take too long
  std::map<std::string, uint64_t> live_of_tenant;
  std::map<std::string, uint64_t> uses_of_entry;  // by entry key: bunkers that need the file
  std::map<std::string, Resources> allocated;     // by worker
  std::map<std::string, uint64_t> cached_bytes;   // by worker

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
