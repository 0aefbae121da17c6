#include "controller/engine/credentials.h"

#include <set>
#include <utility>

#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/engine/image_ref.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

bool UnderWay(const CacheEntry& entry) {
  return entry.assigned &&
         (entry.status == CacheStatus::kPending || entry.status == CacheStatus::kBuilding);
}

// Some registries say "not found", or count anonymous pulls, where a login is missing.
bool MendedByLogin(const CacheEntry& entry) {
  return entry.status == CacheStatus::kFailed &&
         (entry.error_code == "REGISTRY_AUTH_FAILED" || entry.error_code == "IMAGE_NOT_FOUND" ||
          entry.error_code == "REGISTRY_RATE_LIMITED");
}

std::string Quoted(const std::string& name) {
  return "\"" + name + "\"";
}

}  // namespace

std::string Credentials::NewId(Turn& turn) {
  return state_.MakeId("rcr_", turn.now());
}

absl::StatusOr<RowPtr<RegistryCredential>> Credentials::Create(Turn& turn, const Caller& caller,
                                                               const CredentialSpec& spec) {
  ASSIGN_OR_RETURN(const Ownership ownership, OwnershipFor(caller, spec.scope));
  const std::string owner = OwnerKey(ownership);
  if (state_.credential_by_name.count(owner + "/" + spec.name) > 0) {
    return ReasonError(absl::StatusCode::kAlreadyExists, "SLUG_CONFLICT",
                       "a registry credential named " + Quoted(spec.name) + " exists at scope " +
                           std::string(NameOf(spec.scope)) +
                           ": PUT it to rotate its secret, or choose another name");
  }
  if (state_.credentials_of_owner.Of(owner).size() >= state_.options.max_credentials_per_tenant) {
    return ReasonError(absl::StatusCode::kResourceExhausted, "RESOURCE_IN_USE",
                       "there are " + std::to_string(state_.options.max_credentials_per_tenant) +
                           " registry credentials at this scope, the most allowed: delete some");
  }
  RegistryCredential row;
  row.id = spec.id;
  row.name = spec.name;
  row.ownership = ownership;
  row.owner = caller.user_id;
  row.host = spec.host;
  row.username = spec.username;
  row.sealed = spec.sealed;
  row.created_at = row.updated_at = turn.now();
  return state_.credentials.Put(turn, std::move(row));
}

absl::StatusOr<RowPtr<RegistryCredential>> Credentials::Find(const Caller& caller,
                                                             const std::string& name) const {
  for (const std::string& owner :
       {"tenant:" + caller.tenant_id, "partner:" + caller.partner_id, std::string("platform")}) {
    const auto it = state_.credential_by_name.find(owner + "/" + name);
    if (it == state_.credential_by_name.end()) continue;
    RowPtr<RegistryCredential> row = state_.credentials.Find(it->second);
    if (engine_.MaySee(caller, row->ownership)) return row;
  }
  return NotFound("registry credential", name);
}

Page<RegistryCredential> Credentials::List(const Caller& caller, const PageSpec& page) const {
  const auto& rows = state_.credentials.rows();
  Page<RegistryCredential> result;
  auto it = page.after_id.empty() ? rows.end() : rows.lower_bound(page.after_id);
  while (it != rows.begin()) {
    --it;
    if (!engine_.MaySee(caller, it->second->ownership)) continue;
    if (result.rows.size() == page.limit) {
      result.has_more = true;
      break;
    }
    result.rows.push_back(it->second);
  }
  return result;
}

bool Credentials::MayChange(const Caller& caller, const RegistryCredential& credential) const {
  return controller::MayChange(caller, credential.ownership);
}

absl::StatusOr<RowPtr<RegistryCredential>> Credentials::Replace(Turn& turn, const Caller& caller,
                                                                const CredentialSpec& spec) {
  const RowPtr<RegistryCredential> found = state_.credentials.Find(spec.id);
  if (found == nullptr) return NotFound("registry credential", spec.name);
  if (!MayChange(caller, *found)) {
    return Denied("the registry credential " + Quoted(found->name) + " belongs to scope " +
                      std::string(NameOf(found->ownership.scope)),
                  "only its owners may change it");
  }
  const std::set<std::string> images = state_.images_of_credential.Of(found->id);
  if (spec.host != found->host && !images.empty()) {
    const RowPtr<Image> image = state_.images.Find(*images.begin());
    return Invalid("host: the image " + Quoted(image->name) + " uses this credential for " +
                   found->host + ": store one for " + spec.host + " under another name");
  }
  RegistryCredential row = *found;
  row.host = spec.host;
  row.username = spec.username;
  row.sealed = spec.sealed;
  row.updated_at = turn.now();
  RowPtr<RegistryCredential> after = state_.credentials.Put(turn, std::move(row));
  for (const std::string& image_id : images) RetryPulls(turn, image_id);
  return after;
}

absl::Status Credentials::Delete(Turn& turn, const Caller& caller, const std::string& name) {
  ASSIGN_OR_RETURN(const RowPtr<RegistryCredential> found, Find(caller, name));
  if (!MayChange(caller, *found)) {
    return Denied("the registry credential " + Quoted(name) + " belongs to scope " +
                      std::string(NameOf(found->ownership.scope)),
                  "only its owners may delete it");
  }
  const std::set<std::string>& images = state_.images_of_credential.Of(found->id);
  if (!images.empty()) {
    std::string names;
    size_t shown = 0;
    for (const std::string& id : images) {
      // Of a tenant that the caller can't see, the number alone.
      const RowPtr<Image> image = state_.images.Find(id);
      if (shown == 5 || !engine_.MaySee(caller, image->ownership)) continue;
      names += (shown++ == 0 ? ": " : ", ") + image->name;
    }
    return ReasonError(absl::StatusCode::kFailedPrecondition, "RESOURCE_IN_USE",
                       std::to_string(images.size()) + " active image(s) are pulled with " +
                           Quoted(name) + names +
                           ": give them another pull_secret or deactivate them, or PUT the "
                           "credential to rotate it");
  }
  state_.credentials.Erase(turn, found->id);
  return absl::OkStatus();
}

absl::StatusOr<RowPtr<RegistryCredential>> Credentials::ForImage(const Ownership& owner,
                                                                 const std::string& name,
                                                                 const std::string& host) const {
  const Ownership levels[] = {
      owner, {Scope::kPartner, "", owner.partner_id}, {Scope::kPlatform, "", ""}};
  for (const Ownership& level : levels) {
    if (!Reaches(owner, level)) continue;
    const auto it = state_.credential_by_name.find(OwnerKey(level) + "/" + name);
    if (it == state_.credential_by_name.end()) continue;
    RowPtr<RegistryCredential> row = state_.credentials.Find(it->second);
    if (row->host == host) return row;
    return Invalid("pull_secret: the registry credential " + Quoted(name) + " is for " + row->host +
                   ", and the image is at " + host + ": name one for that registry");
  }
  return Invalid("pull_secret: there is no registry credential " + Quoted(name) +
                 " that an image of this scope may use: POST it to /registry-credentials first");
}

absl::StatusOr<RowPtr<RegistryCredential>> Credentials::ForWorker(
    const std::string& worker_id, const std::string& image_id) const {
  const RowPtr<CacheEntry> entry = state_.entries.Find(CacheEntry::Key(image_id, worker_id));
  const RowPtr<Image> image = state_.images.Find(image_id);
  const RowPtr<Worker> worker = state_.workers.Find(worker_id);
  if (entry == nullptr || image == nullptr || worker == nullptr || !entry->assigned) {
    return NotFound("image of this worker's", image_id);
  }
  RowPtr<RegistryCredential> row = state_.credentials.Find(image->credential_id);
  if (row == nullptr) {
    return ReasonError(absl::StatusCode::kNotFound, "NOT_FOUND",
                       "the registry credential " + Quoted(image->pull_secret) +
                           " is gone: give the image another pull_secret");
  }
  if (!Reaches(row->ownership, worker->ownership)) {
    return Denied("the registry credential " + Quoted(row->name) + " of scope " +
                      std::string(NameOf(row->ownership.scope)) +
                      " is not given to a worker of scope " +
                      std::string(NameOf(worker->ownership.scope)),
                  "store one of your own and name it as the image's pull_secret");
  }
  return row;
}

std::vector<RowPtr<RegistryCredential>> Credentials::All() const {
  std::vector<RowPtr<RegistryCredential>> all;
  for (const auto& [id, row] : state_.credentials.rows()) all.push_back(row);
  return all;
}

void Credentials::SealAnew(Turn& turn, const std::string& id, std::string sealed) {
  RegistryCredential row = *state_.credentials.Find(id);
  row.sealed = std::move(sealed);
  state_.credentials.Put(turn, std::move(row));
}

void Credentials::RetryPulls(Turn& turn, const std::string& image_id) {
  const std::set<std::string> workers = state_.workers_of_image.Of(image_id);  // it may change
  for (const std::string& worker_id : workers) {
    const RowPtr<CacheEntry> entry = state_.entries.Find(CacheEntry::Key(image_id, worker_id));
    const bool needed = entry->wanted || engine_.EntryInUse(*entry);
    // One under way may have taken the login of before: should it fail for that, it runs again.
    if (needed && (MendedByLogin(*entry) || UnderWay(*entry))) {
      engine_.RetryEntry(turn, *entry);
    } else if (entry->assigned) {
      engine_.PutEntry(turn, *entry);  // its assignment names the login
    }
  }
  engine_.ElectResolver(turn, *state_.images.Find(image_id));
}

}  // namespace bunker::controller
