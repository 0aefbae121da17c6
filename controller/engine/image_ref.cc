// Finding an image by any of its spellings.
#include <algorithm>
#include <string>
#include <vector>

#include "common/base/id.h"
#include "controller/engine/engine.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

constexpr size_t kMinDigestHex = 12;

bool IsDigestPrefix(const std::string& text) {
  constexpr std::string_view kAlgorithm = "sha256:";
  if (text.compare(0, kAlgorithm.size(), kAlgorithm) != 0) return false;
  const std::string hex = text.substr(kAlgorithm.size());
  return hex.size() >= kMinDigestHex && hex.size() <= 64 &&
         std::all_of(hex.begin(), hex.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

bool HasDigest(const Image& image, const std::string& prefix) {
  return image.resolved &&
         (image.resolved->manifest_digest.compare(0, prefix.size(), prefix) == 0 ||
          image.resolved->index_digest.compare(0, prefix.size(), prefix) == 0);
}

// "docker.io/library/x:1", "library/x:1" and "x:1" are one.
std::string Canonical(std::string ref) {
  for (const std::string_view front : {"docker.io/", "index.docker.io/", "library/"}) {
    if (ref.compare(0, front.size(), front) == 0) ref.erase(0, front.size());
  }
  return ref;
}

std::string WithoutHost(const std::string& ref) {
  const size_t slash = ref.find('/');
  if (slash == std::string::npos) return ref;
  const std::string first = ref.substr(0, slash);
  const bool host = first.find('.') != std::string::npos ||
                    first.find(':') != std::string::npos || first == "localhost";
  return host ? ref.substr(slash + 1) : ref;
}

std::string WithTag(const std::string& ref) {
  const size_t slash = ref.rfind('/');
  const size_t colon = ref.rfind(':');
  const bool tagged =
      colon != std::string::npos && (slash == std::string::npos || colon > slash);
  return tagged ? ref : ref + ":latest";
}

// `asked` may leave the registry's host out.
bool SameRepository(const std::string& asked, const std::string& registered) {
  return Canonical(asked) == Canonical(registered) || asked == WithoutHost(registered);
}

bool MatchesRef(const Image& image, const std::string& ref) {
  if (image.build_source.kind != SourceKind::kOci) return false;
  const std::string registered = image.build_source.ref;
  return SameRepository(WithTag(ref), WithTag(registered)) || SameRepository(ref, registered);
}

std::string RepositoryOf(const Image& image) {
  if (image.resolved && !image.resolved->repository.empty()) return image.resolved->repository;
  std::string ref = image.build_source.ref.substr(0, image.build_source.ref.find('@'));
  const size_t slash = ref.rfind('/');
  const size_t colon = ref.rfind(':');
  if (colon != std::string::npos && (slash == std::string::npos || colon > slash)) {
    ref.resize(colon);
  }
  return ref;
}

}  // namespace

absl::StatusOr<RowPtr<Image>> Engine::FindImage(const Caller& caller,
                                                const std::string& ref) const {
  const State& s = *state_;
  const auto visible = [&](const std::string& id) -> RowPtr<Image> {
    RowPtr<Image> image = s.images.Find(id);
    return image != nullptr && MaySee(caller, image->ownership) ? image : nullptr;
  };
  if (RowPtr<Image> image = visible(ref); image != nullptr) return image;
  if (const std::string id = IdFromUuid("img_", ref); !id.empty()) {
    if (RowPtr<Image> image = visible(id); image != nullptr) return image;
  }
  const size_t at = ref.find('@');
  const std::string digest = at == std::string::npos ? "" : ref.substr(at + 1);
  const std::string front = ref.substr(0, at);
  if (at != std::string::npos && !IsDigestPrefix(digest)) return NotFound("image", ref);
  for (const std::string& owner :
       {"tenant:" + caller.tenant_id, "partner:" + caller.partner_id, std::string("platform")}) {
    const auto it = s.image_by_name.find(owner + "/" + front);
    if (it == s.image_by_name.end()) continue;
    RowPtr<Image> image = visible(it->second);
    if (image != nullptr && (digest.empty() || HasDigest(*image, digest))) return image;
  }
  // repository@digest, repository:tag: the nearest owner's newest active one.
  RowPtr<Image> best;
  for (const std::string& owner :
       {"tenant:" + caller.tenant_id, "partner:" + caller.partner_id, std::string("platform")}) {
    const std::set<std::string>& ids = s.images_of_owner.Of(owner);
    for (auto it = ids.rbegin(); it != ids.rend(); ++it) {
      RowPtr<Image> image = visible(*it);
      if (image == nullptr || (best != nullptr && (best->active || !image->active))) continue;
      const bool hit = digest.empty() ? MatchesRef(*image, ref)
                                      : HasDigest(*image, digest) &&
                                            SameRepository(front, RepositoryOf(*image));
      if (hit) best = image;
    }
    if (best != nullptr && best->active) return best;
  }
  if (best != nullptr) return best;
  return NotFound("image", ref);
}

RowPtr<Image> Engine::FindImageById(const Caller& caller, const std::string& id) const {
  RowPtr<Image> image = state_->images.Find(id);
  if (image == nullptr) return nullptr;
  const bool is_public = image->modelarts && image->modelarts->visibility == "PUBLIC";
  return is_public || MaySee(caller, image->ownership) ? image : nullptr;
}

std::vector<std::string> Engine::UsersWhoSee(const Ownership& owner, size_t at_most) const {
  std::vector<std::string> ids;
  for (const auto& [id, user] : state_->users.rows()) {
    const RowPtr<Tenant> tenant = state_->tenants.Find(user->tenant_id);
    if (tenant == nullptr || user->status != UserStatus::kActive) continue;
    Caller caller;
    caller.tenant_id = tenant->id;
    caller.partner_id = tenant->partner_id;
    caller.role = user->role;
    if (MaySee(caller, owner)) ids.push_back(id);
    if (ids.size() == at_most) break;
  }
  return ids;
}

bool Engine::FindBySwrPath(const Caller& caller, const std::string& canonical_path) const {
  const std::string owner = OwnerKey(caller.ownership());
  return state_->image_by_swr_path.count(owner + "/" + canonical_path) > 0;
}

Page<Image> Engine::ListImages(const Caller& caller, const ImageFilter& filter,
                               const PageSpec& page) const {
  const auto& rows = state_->images.rows();
  Page<Image> result;
  auto it = page.after_id.empty() ? rows.end() : rows.lower_bound(page.after_id);
  while (it != rows.begin()) {
    --it;
    const Image& image = *it->second;
    if (!MaySee(caller, image.ownership)) continue;
    if (!filter.name.empty() && image.name != filter.name) continue;
    if (filter.scope && image.ownership.scope != *filter.scope) continue;
    if (filter.active && image.active != *filter.active) continue;
    if (filter.scan_status && image.scan_status != *filter.scan_status) continue;
    if (!filter.uuids.empty() && filter.uuids.count(image.id) == 0 &&
        filter.uuids.count(UuidOf(image.id)) == 0) {
      continue;
    }
    if (!filter.digest.empty() &&
        !(IsDigestPrefix(filter.digest) && HasDigest(image, filter.digest))) {
      continue;
    }
    if (!filter.tag.empty() && !MatchesRef(image, filter.tag) &&
        std::count(image.tags.begin(), image.tags.end(), filter.tag) == 0) {
      continue;
    }
    if (result.rows.size() == page.limit) {
      result.has_more = true;
      break;
    }
    result.rows.push_back(it->second);
  }
  return result;
}

}  // namespace bunker::controller
