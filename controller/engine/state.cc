#include "controller/engine/state.h"

#include "common/base/reason.h"

namespace bunker::controller {
namespace {

// Whether the worker may still have anything of it.
bool IsOpen(const Bunker& row) { return row.live() || row.assigned || row.room_held; }

// When to look at a row that was just written.
absl::Time FirstLook(const Bunker& row) {
  if (!row.live()) return absl::InfiniteFuture();
  if (row.status != BunkerStatus::kRunning && row.status != BunkerStatus::kPaused) {
    return absl::InfinitePast();
  }
  return NextExpiry(row, row.last_activity_at, /*busy=*/false, row.updated_at);
}

void RemoveKey(std::map<std::string, std::string>& index, const std::string& key,
               const std::string& id) {
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
      partners(Noun::kPartner, nullptr),
      tenants(Noun::kTenant, &ChangeSet::tenants),
      users(Noun::kUser, &ChangeSet::users),
      api_keys(Noun::kApiKey, &ChangeSet::api_keys,
               [this](const ApiKey* before, const ApiKey* after) {
                 if (before != nullptr) RemoveKey(key_by_sha256, before->sha256, before->id);
                 if (after != nullptr) key_by_sha256[after->sha256] = after->id;
               }),
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
      entries(Noun::kCacheEntry, &ChangeSet::cache_entries,
              [this](const CacheEntry* before, const CacheEntry* after) {
                IndexEntry(before, after);
              }),
      bunkers(Noun::kBunker, &ChangeSet::bunkers,
              [this](const Bunker* before, const Bunker* after) { IndexBunker(before, after); }),
      idempotency(Noun::kIdempotency, nullptr,
                  [this](const IdempotencyRecord* before, const IdempotencyRecord* after) {
                    if (before != nullptr) --idempotency_of_tenant[before->tenant_id];
                    if (after != nullptr) ++idempotency_of_tenant[after->tenant_id];
                  }),
      desired(std::nullopt, &ChangeSet::desired) {}

void Engine::State::IndexImage(const Image* before, const Image* after) {
  if (before != nullptr) {
    const std::string owner = OwnerKey(before->ownership);
    RemoveKey(image_by_name, owner + "/" + before->name, before->id);
    images_of_owner.Remove(owner, before->id);
    if (before->modelarts)
      RemoveKey(image_by_swr_path, owner + "/" + before->modelarts->canonical_path, before->id);
    unresolved_images.erase(before->id);
  }
  if (after != nullptr) {
    const std::string owner = OwnerKey(after->ownership);
    image_by_name[owner + "/" + after->name] = after->id;
    images_of_owner.Add(owner, after->id);
    if (after->modelarts)
      image_by_swr_path[owner + "/" + after->modelarts->canonical_path] = after->id;
    if (after->active && !after->resolved) unresolved_images.insert(after->id);
  }
}

void Engine::State::IndexGroup(const Group* before, const Group* after) {
  if (before != nullptr) {
    const std::string owner = OwnerKey(before->ownership);
    RemoveKey(group_by_name, owner + "/" + before->name, before->id);
    groups_of_owner.Remove(owner, before->id);
    auto_groups_of_owner.Remove(owner, before->id);
    for (const std::string& image : before->image_ids) groups_of_image.Remove(image, before->id);
    for (const std::string& worker : before->worker_ids) {
      groups_of_worker.Remove(worker, before->id);
    }
  }
  if (after != nullptr) {
    const std::string owner = OwnerKey(after->ownership);
    group_by_name[owner + "/" + after->name] = after->id;
    groups_of_owner.Add(owner, after->id);
    if (after->auto_images) auto_groups_of_owner.Add(owner, after->id);
    for (const std::string& image : after->image_ids) groups_of_image.Add(image, after->id);
    for (const std::string& worker : after->worker_ids) groups_of_worker.Add(worker, after->id);
  }
}

void Engine::State::IndexWorker(const Worker* before, const Worker* after) {
  if (before != nullptr) {
    RemoveKey(worker_by_name, before->name, before->id);
    RemoveKey(worker_by_credential, before->credential_sha256, before->id);
  }
  if (after != nullptr) {
    worker_by_name[after->name] = after->id;
    if (!after->credential_sha256.empty()) {
      worker_by_credential[after->credential_sha256] = after->id;
    }
    if (before == nullptr || before->status != after->status) {
      worker_looks.ArmBy(after->id, absl::InfinitePast());
      for (const std::string& id : bunkers_of_worker.Of(after->id)) {
        bunker_looks.ArmBy(id, absl::InfinitePast());
      }
    }
  }
}

void Engine::State::IndexEntry(const CacheEntry* before, const CacheEntry* after) {
  if (before != nullptr) {
    workers_of_image.Remove(before->image_id, before->worker_id);
    images_of_worker.Remove(before->worker_id, before->image_id);
    failed_entries.erase(before->key());
    if (before->assigned) cached_bytes[before->worker_id] -= before->allocated_bytes;
  }
  if (after != nullptr) {
    workers_of_image.Add(after->image_id, after->worker_id);
    images_of_worker.Add(after->worker_id, after->image_id);
    if (after->retry_at) failed_entries.insert(after->key());
    if (after->status == CacheStatus::kFailed && !after->retry_at) {
      // Whoever waits for it waits in vain.
      for (const std::string& id : bunkers_of_worker.Of(after->worker_id)) {
        bunker_looks.ArmBy(id, absl::InfinitePast());
      }
    }
    if (after->assigned) cached_bytes[after->worker_id] += after->allocated_bytes;
  }
}

void Engine::State::IndexBunker(const Bunker* before, const Bunker* after) {
  bunker_index.Update(before, after);
  if (before != nullptr) {
    if (before->live()) {
      RemoveKey(bunker_by_name, before->tenant_id + "/" + before->name, before->id);
      --live_of_tenant[before->tenant_id];
    }
    if (before->room_held) allocated[before->worker_id] -= before->footprint();
    if (IsOpen(*before)) {
      bunkers_of_worker.Remove(before->worker_id, before->id);
      const std::string entry = CacheEntry::Key(before->image_id, before->worker_id);
      if (--uses_of_entry[entry] == 0) uses_of_entry.erase(entry);
    }
  }
  if (after != nullptr) {
    if (after->live()) {
      bunker_by_name[after->tenant_id + "/" + after->name] = after->id;
      ++live_of_tenant[after->tenant_id];
    }
    if (after->room_held) allocated[after->worker_id] += after->footprint();
    bunker_looks.ArmBy(after->id, FirstLook(*after));
    if (IsOpen(*after)) {
      bunkers_of_worker.Add(after->worker_id, after->id);
      ++uses_of_entry[CacheEntry::Key(after->image_id, after->worker_id)];
    }
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

Resources Engine::State::AllocatedOn(const std::string& worker_id) const {
  const auto it = allocated.find(worker_id);
  return it == allocated.end() ? Resources{} : it->second;
}

uint64_t Engine::State::CachedMb(const std::string& worker_id) const {
  const auto it = cached_bytes.find(worker_id);
  return it == cached_bytes.end() ? 0 : (it->second + (1 << 20) - 1) >> 20;
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
      return false;
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
      if (!caller.super_admin()) {
        return Denied("scope platform is for super admins", "use scope tenant");
      }
      return Ownership{Scope::kPlatform, "", ""};
  }
  return Invalid("unknown scope");
}

}  // namespace bunker::controller
