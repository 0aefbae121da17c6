#include "controller/engine/state.h"

#include <algorithm>

#include "common/base/reason.h"
#include "controller/engine/image_ref.h"

namespace bunker::controller {
namespace {

// Whether the worker may still have anything of it.
bool IsOpen(const Bunker& row) { return row.live() || row.assigned || row.room_held; }

// When to look at a row that was just written.
absl::Time FirstLook(const Bunker& row) {
  if (!row.live()) return absl::InfiniteFuture();
  const bool is_up = row.status == BunkerStatus::kRunning || row.status == BunkerStatus::kPaused;
  const bool is_parked = row.halted && row.status != BunkerStatus::kStopping;
  if (!is_parked && (!is_up || row.IsSwitching())) return absl::InfinitePast();
  return NextExpiry(row, row.last_activity_at, /*busy=*/false, row.updated_at);
}

// Calls `change(member, added)` for each member that one of the two sets alone has.
template <typename F>
void ForEachChange(const std::set<std::string>& before, const std::set<std::string>& after,
                   F change) {
  auto a = before.begin();
  auto b = after.begin();
  while (a != before.end() || b != after.end()) {
    if (b == after.end() || (a != before.end() && *a < *b)) {
      change(*a++, false);
    } else if (a == before.end() || *b < *a) {
      change(*b++, true);
    } else {
      ++a;
      ++b;
    }
  }
}

template <typename Index>
void RemoveKey(Index& index, const std::string& key, const std::string& id) {
  const auto it = index.find(key);
  if (it != index.end() && it->second == id) index.erase(it);
}

}  // namespace

std::string OwnerKey(const Ownership& ownership) {
  switch (ownership.scope) {
    case Scope::kTenant: return "tenant:" + ownership.tenant_id;
    case Scope::kPartner: return "partner:" + ownership.partner_id;
    case Scope::kPlatform: return "platform";
  }
  CheckFailed("an enum value without a name", __FILE__, __LINE__);
}

Engine::State::State(EngineOptions engine_options, Rng& source)
    : options(engine_options),
      rng(source),
      meta(Noun::kMeta, nullptr),
      partners(Noun::kPartner, nullptr,
               [this](const Partner* b, const Partner* a) { account_index.Index(b, a); }),
      tenants(Noun::kTenant, &ChangeSet::tenants,
              [this](const Tenant* b, const Tenant* a) { account_index.Index(b, a); }),
      users(Noun::kUser, &ChangeSet::users,
            [this](const User* b, const User* a) {
              account_index.Index(b, a);
              IndexMember(b, a);
            }),
      user_groups(Noun::kUserGroup, &ChangeSet::user_groups,
                  [this](const UserGroup* b, const UserGroup* a) {
                    account_index.Index(b, a);
                    quota_index.SetParent(a != nullptr ? a->id : b->id,
                                          a != nullptr ? a->parent_id : "");
                  }),
      api_keys(Noun::kApiKey, &ChangeSet::api_keys,
               [this](const ApiKey* b, const ApiKey* a) { account_index.Index(b, a); }),
      join_tokens(Noun::kJoinToken, nullptr,
                  [this](const JoinToken* before, const JoinToken* after) {
                    if (before != nullptr) RemoveKey(token_by_sha256, before->sha256, before->id);
                    if (after != nullptr) token_by_sha256[after->sha256] = after->id;
                  }),
      workers(Noun::kWorker, &ChangeSet::workers,
              [this](const Worker* before, const Worker* after) { IndexWorker(before, after); }),
      images(Noun::kImage, &ChangeSet::images,
             [this](const Image* before, const Image* after) { IndexImage(before, after); }),
      groups(Noun::kGroup, &ChangeSet::groups,
             [this](const Group* before, const Group* after) { IndexGroup(before, after); }),
      entries(
          Noun::kCacheEntry, &ChangeSet::cache_entries,
          [this](const CacheEntry* before, const CacheEntry* after) { IndexEntry(before, after); }),
      bunkers(Noun::kBunker, &ChangeSet::bunkers,
              [this](const Bunker* before, const Bunker* after) { IndexBunker(before, after); }),
      idempotency(Noun::kIdempotency, nullptr,
                  [this](const IdempotencyRecord* before, const IdempotencyRecord* after) {
                    if (before != nullptr) --idempotency_of_tenant[before->tenant_id];
                    if (after != nullptr) ++idempotency_of_tenant[after->tenant_id];
                  }),
      credentials(Noun::kRegistryCredential, nullptr,
                  [this](const RegistryCredential* before, const RegistryCredential* after) {
                    if (before != nullptr) {
                      const std::string owner = OwnerKey(before->ownership);
                      RemoveKey(credential_by_name, owner + "/" + before->name, before->id);
                      credentials_of_owner.Remove(owner, before->id);
                    }
                    if (after != nullptr) {
                      const std::string owner = OwnerKey(after->ownership);
                      credential_by_name[owner + "/" + after->name] = after->id;
                      credentials_of_owner.Add(owner, after->id);
                    }
                  }),
      quota_profiles(Noun::kQuotaProfile, nullptr,
                     [this](const QuotaProfile* before, const QuotaProfile* after) {
                       IndexQuotaProfile(before, after);
                     }),
      quota_assignments(Noun::kQuotaAssignment, nullptr,
                        [this](const QuotaAssignment* before, const QuotaAssignment* after) {
                          IndexQuotaAssignment(before, after);
                        }),
      scan_reports(
          Noun::kScanReport, &ChangeSet::scan_reports,
          [this](const ScanReport* before, const ScanReport* after) { IndexScan(before, after); }),
      scan_documents(Noun::kScanDocument),
      snapshots(
          Noun::kSnapshot, nullptr,
          [this](const Snapshot* before, const Snapshot* after) { IndexSnapshot(before, after); }),
      bridges(Noun::kBridge, nullptr,
              [this](const Bridge* before, const Bridge* after) { IndexBridge(before, after); }),
      desired(std::nullopt, &ChangeSet::desired),
      placement(options.placement),
      queue(options.work_limits) {}

void Engine::State::IndexImage(const Image* before, const Image* after) {
  if (before != nullptr) {
    const std::string owner = OwnerKey(before->ownership);
    RemoveKey(image_by_name, owner + "/" + before->name, before->id);
    images_of_owner.Remove(owner, before->id);
    if (before->modelarts)
      RemoveKey(image_by_swr_path, owner + "/" + before->modelarts->canonical_path, before->id);
    unresolved_images.erase(before->id);
    images_of_credential.Remove(before->credential_id, before->id);
    for (const Repository& repository : RepositoriesOf(*before)) {
      images_of_repository.Remove(owner + " " + repository.path, before->id);
    }
    if (before->tag_check_at) tag_checks.erase({*before->tag_check_at, before->id});
  }
  if (after != nullptr) {
    const std::string owner = OwnerKey(after->ownership);
    image_by_name[owner + "/" + after->name] = after->id;
    images_of_owner.Add(owner, after->id);
    if (after->modelarts)
      image_by_swr_path[owner + "/" + after->modelarts->canonical_path] = after->id;
    if (after->active && !after->resolved) unresolved_images.insert(after->id);
    if (after->active && !after->credential_id.empty()) {
      images_of_credential.Add(after->credential_id, after->id);
    }
    for (const Repository& repository : RepositoriesOf(*after)) {
      images_of_repository.Add(owner + " " + repository.path, after->id);
    }
    if (after->active && after->tag_check_at) {
      tag_checks.insert({*after->tag_check_at, after->id});
    }
  }
  MarkImage(before, after);
}

void Engine::State::IndexGroup(const Group* before, const Group* after) {
  if (before != nullptr) {
    const std::string owner = OwnerKey(before->ownership);
    RemoveKey(group_by_name, owner + "/" + before->name, before->id);
    groups_of_owner.Remove(owner, before->id);
    auto_groups_of_owner.Remove(owner, before->id);
  }
  if (after != nullptr) {
    const std::string owner = OwnerKey(after->ownership);
    group_by_name[owner + "/" + after->name] = after->id;
    groups_of_owner.Add(owner, after->id);
    if (after->auto_images) auto_groups_of_owner.Add(owner, after->id);
  }
  // Attaching one of many costs one: only the difference is indexed.
  static const std::set<std::string>* const none = new std::set<std::string>();
  const std::string id = before != nullptr ? before->id : after->id;
  const std::string owner = OwnerKey(before != nullptr ? before->ownership : after->ownership);
  ForEachChange(before == nullptr ? *none : before->image_ids,
                after == nullptr ? *none : after->image_ids,
                [&](const std::string& image, bool added) {
                  groups_of_image.Set(image, id, added);
                  groups_of_owned_image.Set(owner + "/" + image, id, added);
                });
  ForEachChange(before == nullptr ? *none : before->worker_ids,
                after == nullptr ? *none : after->worker_ids,
                [&](const std::string& worker, bool added) {
                  groups_of_worker.Set(worker, id, added);
                  placement.SetPaired(id, worker, added);
                });
  MarkGroup(before, after);
}

void Engine::State::IndexWorker(const Worker* before, const Worker* after) {
  if (before != nullptr) {
    RemoveKey(worker_by_name, OwnerKey(before->ownership) + "/" + before->name, before->id);
    if (before->draining) draining_workers.erase(before->id);
    RemoveKey(worker_by_credential, before->credential_sha256, before->id);
  }
  if (after != nullptr) {
    worker_by_name[OwnerKey(after->ownership) + "/" + after->name] = after->id;
    if (after->draining) draining_workers.insert(after->id);
    if (!after->credential_sha256.empty()) {
      worker_by_credential[after->credential_sha256] = after->id;
    }
    if (before == nullptr || before->status != after->status) {
      worker_looks.ArmBy(after->id, absl::InfinitePast());
      for (const std::string& id : bunkers_of_worker.Of(after->id)) {
        bunker_looks.ArmBy(id, absl::InfinitePast());
      }
    }
    placement.PutWorker(*after);
  } else {
    placement.RemoveWorker(before->id);
  }
  MarkWorker(before, after);
}

void Engine::State::IndexEntry(const CacheEntry* before, const CacheEntry* after) {
  if (before != nullptr) {
    workers_of_image.Remove(before->image_id, before->worker_id);
    images_of_worker.Remove(before->worker_id, before->image_id);
    failed_entries.erase(before->key());
    if (before->assigned) placement.GiveCache(before->worker_id, before->allocated_bytes);
  }
  if (after != nullptr) {
    workers_of_image.Add(after->image_id, after->worker_id);
    images_of_worker.Add(after->worker_id, after->image_id);
    if (after->retry_at) failed_entries.insert(after->key());
    if ((after->status == CacheStatus::kFailed && !after->retry_at) ||
        after->skip != SkipReason::kNone) {
      // Whoever waits for it waits in vain.
      for (const std::string& id : bunkers_of_worker.Of(after->worker_id)) {
        bunker_looks.ArmBy(id, absl::InfinitePast());
      }
    }
    if (after->assigned) placement.TakeCache(after->worker_id, after->allocated_bytes);
  }
  const CacheEntry& entry = after != nullptr ? *after : *before;
  placement.SetReady(entry.image_id, entry.worker_id, after != nullptr && IsPlaceable(*after));
  IndexWork(before, after);
}

void Engine::State::IndexRoom(const Bunker* before, const Bunker* after) {
  const auto booting = [](const Bunker* row) {
    return row != nullptr && row->live() && row->status == BunkerStatus::kProvisioning;
  };
  const bool same_worker =
      before != nullptr && after != nullptr && before->worker_id == after->worker_id;
  const bool held = before != nullptr && before->room_held;
  const bool holds = after != nullptr && after->room_held;
  if (!same_worker || held != holds || !(before->footprint() == after->footprint())) {
    if (held) placement.Give(before->worker_id, before->footprint());
    if (holds) placement.Take(after->worker_id, after->footprint());
  }
  if (!same_worker || booting(before) != booting(after)) {
    if (booting(before)) placement.AddBooting(before->worker_id, -1);
    if (booting(after)) placement.AddBooting(after->worker_id, 1);
  }
  const QuotaUsage counted = before == nullptr ? QuotaUsage{} : CountOf(*before);
  const QuotaUsage counts = after == nullptr ? QuotaUsage{} : CountOf(*after);
  if (before == nullptr || after == nullptr || before->owner != after->owner ||
      !(counted == counts)) {
    if (before != nullptr) quota_index.Subtract(before->owner, counted);
    if (after != nullptr) quota_index.Add(after->owner, counts);
  }
}

void Engine::State::IndexBunker(const Bunker* before, const Bunker* after) {
  bunker_index.Update(before, after);
  if (before != nullptr && before->awaits_disk())
    bunkers_of_snapshot.Remove(before->snapshot_id, before->id);
  if (after != nullptr && after->awaits_disk() && !after->snapshot_id.empty())
    bunkers_of_snapshot.Add(after->snapshot_id, after->id);
  IndexRoom(before, after);
  if (before != nullptr) bunker_changes.erase(before->change_id);
  if (after != nullptr && after->change_id != 0) {
    if (const auto key = BunkerIndex::KeyOf(after->id)) bunker_changes[after->change_id] = *key;
  }
  if (before != nullptr) {
    if (before->live()) {
      RemoveKey(bunker_by_name, before->tenant_id + "/" + before->name, before->id);
      live_of_tenant.Remove(before->tenant_id, before->id);
      IndexInterfaces(*before, false);
    }
    if (IsOpen(*before)) {
      bunkers_of_worker.Remove(before->worker_id, before->id);
      const std::string entry = CacheEntry::Key(before->image_id, before->worker_id);
      if (--uses_of_entry[entry] == 0) uses_of_entry.erase(entry);
      room_changed.insert(before->worker_id);
      let_go.insert(entry);
    }
  }
  if (after != nullptr) {
    if (after->live()) {
      bunker_by_name[after->tenant_id + "/" + after->name] = after->id;
      live_of_tenant.Add(after->tenant_id, after->id);
      IndexInterfaces(*after, true);
    }
    bunker_looks.ArmBy(after->id, FirstLook(*after));
    if (IsOpen(*after)) {
      bunkers_of_worker.Add(after->worker_id, after->id);
      ++uses_of_entry[CacheEntry::Key(after->image_id, after->worker_id)];
    }
  }
}

void Engine::State::IndexBridge(const Bridge* before, const Bridge* after) {
  if (before != nullptr) {
    const std::string owner = OwnerKey(before->ownership);
    RemoveKey(bridge_by_name, owner + "/" + before->name, before->id);
    bridges_of_owner.Remove(owner, before->id);
  }
  if (after != nullptr) {
    const std::string owner = OwnerKey(after->ownership);
    bridge_by_name[owner + "/" + after->name] = after->id;
    bridges_of_owner.Add(owner, after->id);
  }
}

void Engine::State::IndexInterfaces(const Bunker& bunker, bool added) {
  for (const BunkerInterface& interface : bunker.interfaces) {
    bunkers_of_bridge.Set(interface.bridge_id, bunker.id, added);
    for (const std::string& key : {interface.MacKey(), interface.AddressKey()}) {
      if (key.empty()) continue;
      if (added) {
        bunker_of_link_name[key] = bunker.id;
      } else {
        RemoveKey(bunker_of_link_name, key, bunker.id);
      }
    }
  }
}

void Engine::State::IndexQuotaProfile(const QuotaProfile* before, const QuotaProfile* after) {
  if (before != nullptr) {
    const std::string owner = OwnerKey(before->ownership);
    RemoveKey(quota_profile_by_name, owner + "/" + before->name, before->id);
    quota_profiles_of_owner.Remove(owner, before->id);
  }
  if (after != nullptr) {
    const std::string owner = OwnerKey(after->ownership);
    quota_profile_by_name[owner + "/" + after->name] = after->id;
    quota_profiles_of_owner.Add(owner, after->id);
  }
}

void Engine::State::IndexQuotaAssignment(const QuotaAssignment* before,
                                         const QuotaAssignment* after) {
  const auto key = [](const QuotaAssignment& row) {
    return std::string(NameOf(row.target_kind)) + ":" + row.target_id;
  };
  if (before != nullptr) {
    RemoveKey(assignment_of_target, key(*before), before->id);
    assignments_of_profile.Remove(before->profile_id, before->id);
  }
  if (after != nullptr) {
    assignment_of_target[key(*after)] = after->id;
    assignments_of_profile.Add(after->profile_id, after->id);
  }
}

void Engine::State::IndexMember(const User* before, const User* after) {
  static const std::set<std::string> kNone;
  const std::set<std::string>& left = before != nullptr ? before->group_ids : kNone;
  const std::set<std::string>& joined = after != nullptr ? after->group_ids : kNone;
  const std::string& id = after != nullptr ? after->id : before->id;
  ForEachChange(left, joined,
                [&](const std::string& group, bool in) { quota_index.SetMember(group, id, in); });
}

std::string Engine::State::TenantOfUserGroup(const std::string& group_id) const {
  const RowPtr<UserGroup> group = user_groups.Find(group_id);
  return group == nullptr ? "" : group->tenant_id;
}

void Engine::State::IndexScan(const ScanReport* before, const ScanReport* after) {
  const auto is_open = [](const ScanReport& report) {
    return report.phase == ScanPhase::kWaiting || report.phase == ScanPhase::kScanning;
  };
  if (before != nullptr && is_open(*before)) {
    open_scans.erase(before->id);
    if (!before->worker_id.empty()) {
      scans_of_worker.Remove(before->worker_id, before->id);
      const std::string entry = CacheEntry::Key(before->id, before->worker_id);
      if (--uses_of_entry[entry] == 0) uses_of_entry.erase(entry);
      room_changed.insert(before->worker_id);
      let_go.insert(entry);
    }
  }
  if (after != nullptr && is_open(*after)) {
    open_scans.insert(after->id);
    if (!after->worker_id.empty()) {
      scans_of_worker.Add(after->worker_id, after->id);
      ++uses_of_entry[CacheEntry::Key(after->id, after->worker_id)];
    }
  }
}

void Engine::State::IndexSnapshot(const Snapshot* before, const Snapshot* after) {
  const auto charge = [](std::map<std::string, uint64_t>& sums, const std::string& key,
                         uint64_t less, uint64_t more) {
    uint64_t& sum = sums[key];
    BUNKER_CHECK(sum >= less);
    sum = sum - less + more;
    if (sum == 0) sums.erase(key);
  };
  if (before != nullptr) {
    RemoveKey(snapshot_by_name, before->tenant_id + "/" + before->name, before->id);
    snapshots_of_tenant.Remove(before->tenant_id, before->id);
    charge(snapshot_bytes_of_tenant, before->tenant_id, before->charged_bytes(), 0);
    charge(snapshot_bytes_of_worker, before->worker_id, before->charged_bytes(), 0);
    if (const uint64_t bytes = before->charged_bytes(); bytes > 0) {
      placement.GiveCache(before->worker_id, bytes);
    }
    snapshots_of_worker.Remove(before->worker_id, before->id);
    open_snapshots.erase(before->id);
    if (before->status == SnapshotStatus::kCreating)
      RemoveKey(creating_of_bunker, before->bunker_id, before->id);
    if (before->kept()) {
      const std::string entry = before->entry_key();
      snapshots_of_entry.Remove(entry, before->id);
      if (--uses_of_entry[entry] == 0) uses_of_entry.erase(entry);
      let_go.insert(entry);
    }
    room_changed.insert(before->worker_id);
  }
  if (after == nullptr) return;
  snapshot_by_name[after->tenant_id + "/" + after->name] = after->id;
  snapshots_of_tenant.Add(after->tenant_id, after->id);
  charge(snapshot_bytes_of_tenant, after->tenant_id, 0, after->charged_bytes());
  charge(snapshot_bytes_of_worker, after->worker_id, 0, after->charged_bytes());
  // Of a worker that is gone nothing is taken.
  if (const uint64_t bytes = after->charged_bytes(); bytes > 0) {
    placement.TakeCache(after->worker_id, bytes);
  }
  if (after->assigned) snapshots_of_worker.Add(after->worker_id, after->id);
  if (after->open()) open_snapshots.insert(after->id);
  if (after->status == SnapshotStatus::kCreating) creating_of_bunker[after->bunker_id] = after->id;
  if (after->kept()) {
    snapshots_of_entry.Add(after->entry_key(), after->id);
    ++uses_of_entry[after->entry_key()];
  }
}

std::vector<const Group*> Engine::State::GroupsHolding(const Image& image) const {
  std::vector<const Group*> holding;
  std::set<std::string> ids = groups_of_image.Of(image.id);
  const std::set<std::string>& automatic = auto_groups_of_owner.Of(OwnerKey(image.ownership));
  ids.insert(automatic.begin(), automatic.end());
  for (const std::string& id : ids) {
    const RowPtr<Group> group = groups.Find(id);
    // The table keeps the row alive: the pointer is good until the next change.
    if (group != nullptr && GroupHolds(*group, image)) holding.push_back(group.get());
  }
  return holding;
}

std::map<std::string, const Worker*> Engine::State::WorkersOf(
    const std::vector<const Group*>& some) const {
  std::map<std::string, const Worker*> found;
  for (const Group* group : some) {
    for (const std::string& id : group->worker_ids) {
      const RowPtr<Worker> worker = workers.Find(id);
      if (worker != nullptr) found[id] = worker.get();
    }
  }
  return found;
}

std::vector<std::string> Engine::State::GroupIdsHolding(const Image& image,
                                                        const Ownership& tenant) const {
  std::vector<std::string> ids;
  for (const std::string& owner :
       {"tenant:" + tenant.tenant_id, "partner:" + tenant.partner_id, std::string("platform")}) {
    const std::set<std::string>& held = groups_of_owned_image.Of(owner + "/" + image.id);
    ids.insert(ids.end(), held.begin(), held.end());
    if (owner != OwnerKey(image.ownership)) continue;
    for (const std::string& id : auto_groups_of_owner.Of(owner)) {
      if (held.count(id) == 0) ids.push_back(id);
    }
  }
  // A group of a scope around the image's own does not hold it.
  ids.erase(std::remove_if(ids.begin(), ids.end(),
                           [&](const std::string& id) {
                             const RowPtr<Group> group = groups.Find(id);
                             return group == nullptr || !GroupHolds(*group, image);
                           }),
            ids.end());
  return ids;
}

absl::Status NotFound(std::string_view noun, std::string_view ref) {
  return ReasonError(absl::StatusCode::kNotFound, "NOT_FOUND",
                     "there is no " + std::string(noun) + " \"" + std::string(ref) +
                         "\": list them to see what there is");
}

absl::Status Denied(std::string_view what, std::string_view remedy) {
  return ReasonError(absl::StatusCode::kPermissionDenied, "AUTHZ_PERMISSION_DENIED",
                     std::string(what) + ": " + std::string(remedy));
}

absl::Status Invalid(std::string_view message) {
  return ReasonError(absl::StatusCode::kInvalidArgument, "VALIDATION_ERROR", message);
}

bool MayChange(const Caller& caller, const Ownership& owner) {
  if (caller.super_admin()) return true;
  switch (owner.scope) {
    case Scope::kPlatform:
      return caller.platform_admin();
    case Scope::kPartner:
      return caller.role == Role::kPartnerAdmin && caller.partner_id == owner.partner_id;
    case Scope::kTenant:
      return caller.tenant_id == owner.tenant_id ||
             (caller.role == Role::kPartnerAdmin && caller.partner_id == owner.partner_id);
  }
  return false;
}

absl::StatusOr<Ownership> OwnershipFor(const Caller& caller, Scope scope) {
  switch (scope) {
    case Scope::kTenant:
      if (caller.tenant_id.empty()) {
        return Invalid("the caller belongs to no tenant: name the scope platform");
      }
      return caller.ownership();
    case Scope::kPartner:
      if (caller.role != Role::kPartnerAdmin && !caller.super_admin()) {
        return Denied("scope partner is for partner admins", "use scope tenant");
      }
      return Ownership{Scope::kPartner, "", caller.partner_id};
    case Scope::kPlatform:
      if (!caller.platform_admin()) {
        return Denied("scope platform is for platform admins", "use scope tenant");
      }
      return Ownership{Scope::kPlatform, "", ""};
  }
  return Invalid("unknown scope");
}

}  // namespace bunker::controller
