// Images: registering, warming, retiring, and what is told of their way to the workers.
#include <string>
#include <utility>

#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/engine/credentials.h"
#include "controller/engine/engine.h"
#include "controller/engine/image_ref.h"
#include "controller/engine/state.h"

namespace bunker::controller {

namespace {

// The reference as it was written, with the tag that it means.
std::vector<std::string> TagsOf(const Image& image) {
  if (!HasTag(image)) return {};
  const std::string& ref = image.build_source.ref;
  const size_t colon = ref.rfind(':');
  const size_t slash = ref.rfind('/');
  const bool tagged = colon != std::string::npos && (slash == std::string::npos || colon > slash);
  return {tagged ? ref : ref + ":latest"};
}

}  // namespace

absl::Status Engine::SetPullSecret(const std::string& name, Image& image) const {
  image.pull_secret = name;
  image.credential_id.clear();
  if (name.empty()) return absl::OkStatus();
  if (image.build_source.kind != SourceKind::kOci) {
    return Invalid("pull_secret: a tar source is read from a folder: leave it out");
  }
  ASSIGN_OR_RETURN(const RowPtr<RegistryCredential> credential,
                   credentials_->ForImage(image.ownership, name, RegistryHostOf(image)));
  image.credential_id = credential->id;
  return absl::OkStatus();
}

absl::StatusOr<RowPtr<Image>> Engine::RegisterImage(Turn& turn, const Caller& caller,
                                                    const RegisterImageSpec& spec) {
  State& s = *state_;
  ASSIGN_OR_RETURN(const Ownership ownership, OwnershipFor(caller, spec.scope));
  if (spec.name.empty()) return Invalid("name: required");
  const std::string owner = OwnerKey(ownership);
  if (spec.modelarts &&
      s.image_by_swr_path.count(owner + "/" + spec.modelarts->canonical_path) > 0) {
    return ReasonError(absl::StatusCode::kAlreadyExists, "SLUG_CONFLICT",
                       "the path " + spec.modelarts->swr_path +
                           " is registered already (a deactivated image keeps its path): use that "
                           "image, or push under another tag");
  }
  if (s.image_by_name.count(owner + "/" + spec.name) > 0) {
    return ReasonError(absl::StatusCode::kAlreadyExists, "SLUG_CONFLICT",
                       "an image named " + spec.name + " exists at scope " +
                           std::string(NameOf(spec.scope)) +
                           " (a deactivated one keeps its name): register under another name");
  }
  if (s.images_of_owner.Of(owner).size() >= s.options.max_images_per_tenant) {
    return ReasonError(absl::StatusCode::kResourceExhausted, "RESOURCE_IN_USE",
                       "there are " + std::to_string(s.options.max_images_per_tenant) +
                           " images at this scope, the most allowed: ask the operator");
  }
  Image image;
  image.id = s.MakeId("img_", turn.now());
  image.ownership = ownership;
  image.build_source = spec.build_source;
  RETURN_IF_ERROR(SetPullSecret(spec.pull_secret, image));
  image.name = spec.name;
  image.display_name = spec.display_name;
  image.description = spec.description;
  image.size_mib = spec.size_mib;
  image.default_cpu_millicores = spec.default_cpu_millicores;
  image.default_memory_mb = spec.default_memory_mb;
  image.default_disk_mb = spec.default_disk_mb;
  image.owner = caller.user_id;
  image.lazy_pull = spec.lazy_pull;
  image.preinstalled = spec.preinstalled;
  image.arch = spec.arch;
  image.resource_category = spec.resource_category;
  image.modelarts = spec.modelarts;
  image.created_at = image.updated_at = turn.now();
  image.tags = TagsOf(image);
  const std::string id = image.id;
  s.images.Put(turn, std::move(image));
  ReconcileImage(turn, id);
  return s.images.Find(id);
}

absl::StatusOr<RowPtr<Image>> Engine::UpdateImage(Turn& turn, const Caller& caller,
                                                  const std::string& image_ref,
                                                  const UpdateImageSpec& spec) {
  State& s = *state_;
  ASSIGN_OR_RETURN(const RowPtr<Image> found, FindImage(caller, image_ref));
  if (!MayChange(caller, found->ownership)) {
    return Denied("the image belongs to scope " + std::string(NameOf(found->ownership.scope)),
                  "only its owners may change it");
  }
  Image image = *found;
  if (spec.display_name) image.display_name = *spec.display_name;
  if (spec.description) image.description = *spec.description;
  if (spec.default_cpu_millicores) image.default_cpu_millicores = *spec.default_cpu_millicores;
  if (spec.default_memory_mb) image.default_memory_mb = *spec.default_memory_mb;
  if (spec.default_disk_mb) image.default_disk_mb = *spec.default_disk_mb;
  if (spec.lazy_pull) image.lazy_pull = *spec.lazy_pull;
  if (spec.preinstalled) image.preinstalled = *spec.preinstalled;
  if (spec.pull_secret) RETURN_IF_ERROR(SetPullSecret(*spec.pull_secret, image));
  const bool other_login = image.credential_id != found->credential_id;
  image.updated_at = turn.now();
  s.images.Put(turn, std::move(image));
  if (other_login) credentials_->RetryPulls(turn, found->id);
  return s.images.Find(found->id);
}

absl::StatusOr<WarmSummary> Engine::Warm(Turn& turn, const Caller& caller,
                                         const std::string& image_ref) {
  State& s = *state_;
  ASSIGN_OR_RETURN(const RowPtr<Image> image, FindImage(caller, image_ref));
  if (!MayChange(caller, image->ownership)) {
    return Denied("the image belongs to scope " + std::string(NameOf(image->ownership.scope)),
                  "only its owners may warm it");
  }
  if (!image->active) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, "IMAGE_INACTIVE",
                       "the image " + image->name +
                           " is deactivated: register it again under a new name");
  }
  ReconcileImage(turn, image->id);
  const std::set<std::string> workers = s.workers_of_image.Of(image->id);
  for (const std::string& worker_id : workers) {
    const RowPtr<CacheEntry> entry = s.entries.Find(CacheEntry::Key(image->id, worker_id));
    if (entry->status != CacheStatus::kFailed) continue;
    if (entry->wanted || EntryInUse(*entry)) RetryEntry(turn, *entry);
  }
  ElectResolver(turn, *s.images.Find(image->id));
  return WarmOf(image->id);
}

absl::StatusOr<RowPtr<Image>> Engine::Deactivate(Turn& turn, const Caller& caller,
                                                 const std::string& image_ref) {
  State& s = *state_;
  ASSIGN_OR_RETURN(const RowPtr<Image> found, FindImage(caller, image_ref));
  if (!MayChange(caller, found->ownership)) {
    return Denied("the image belongs to scope " + std::string(NameOf(found->ownership.scope)),
                  "only its owners may deactivate it");
  }
  if (!found->active) return found;
  Image image = *found;
  image.active = false;
  image.updated_at = turn.now();
  s.images.Put(turn, std::move(image));
  ReconcileImage(turn, found->id);
  return s.images.Find(found->id);
}

}  // namespace bunker::controller
