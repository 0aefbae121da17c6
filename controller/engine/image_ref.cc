// Finding an image by any of its spellings.
//
// id and uuid are exact. A name is its owner's: the caller's tenant's, then its partner's, then
// the platform's, and with a digest the nearest one that has it. What is no name is a reference:
//   - With a host it means that registry. Without one it means Docker Hub, as everywhere, and if
//     nothing of Docker Hub fits, any registry.
//   - Owners count in the same order as for names; one of them whose image is active wins over a
//     nearer one whose images are all deactivated.
//   - Of one owner's images with the same repository and tag (or digest), the newest active one.
//   - Where one owner's images of several registries, or of several digests, fit, it is refused:
//     there is no telling which is meant.
#include "controller/engine/image_ref.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/id.h"
#include "common/base/status_macros.h"
#include "common/oci/reference.h"
#include "controller/engine/engine.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

constexpr size_t kMinDigestHex = 12;
constexpr std::string_view kHub = "docker.io";

bool HasDigest(const Image& image, const std::string& prefix) {
  const auto begins = [&](const std::string& digest) {
    return digest.compare(0, prefix.size(), prefix) == 0;
  };
  if (image.resolved &&
      (begins(image.resolved->manifest_digest) || begins(image.resolved->index_digest))) {
    return true;
  }
  const size_t at = image.build_source.ref.find('@');  // known before it is resolved
  return at != std::string::npos && begins(image.build_source.ref.substr(at + 1));
}

// What a reference asks for.
struct Asked {
  std::string host;      // "": none was written
  std::string path;      // as written, less the tag
  std::string hub_path;  // as Docker Hub has it
  std::string tag;
  std::string digest;  // or its first digits
};

bool LooksLikeHost(std::string_view component) {
  return component == "localhost" || component.find_first_of(".:[") != std::string_view::npos;
}

std::optional<Asked> ParseAsked(const std::string& front, const std::string& digest) {
  const auto parsed = oci::ParseReference(front);
  if (!parsed.ok()) return std::nullopt;
  Asked asked;
  const size_t slash = front.find('/');
  if (slash != std::string::npos && LooksLikeHost(std::string_view(front).substr(0, slash))) {
    asked.host = parsed->host;
  }
  asked.hub_path = parsed->repository;
  asked.path = front;
  const size_t colon = front.rfind(':');
  if (colon != std::string::npos && (slash == std::string::npos || colon > front.rfind('/'))) {
    asked.path = front.substr(0, colon);
  }
  asked.tag = digest.empty() ? parsed->tag : "";
  asked.digest = digest;
  return asked;
}

bool FitsRepository(const Image& image, const Asked& asked) {
  for (const Repository& repository : RepositoriesOf(image)) {
    const bool hub = repository.host == kHub && repository.path == asked.hub_path;
    const bool there = asked.host.empty()
                           ? hub || repository.path == asked.path
                           : repository.host == asked.host && repository.path == asked.hub_path;
    if (there) return true;
  }
  return false;
}

bool Fits(const Image& image, const Asked& asked) {
  if (!FitsRepository(image, asked)) return false;
  if (!asked.digest.empty()) return HasDigest(image, asked.digest);
  if (image.build_source.kind != SourceKind::kOci) return false;
  const auto registered = oci::ParseReference(image.build_source.ref);
  return registered.ok() && registered->tag == asked.tag;
}

bool IsHubs(const Image& image) {
  return RegistryHostOf(image) == kHub;
}

// What tells the images that fit apart: for a digest its whole self, else the registry.
std::string TargetOf(const Image& image, const Asked& asked) {
  if (asked.digest.empty()) return RegistryHostOf(image);
  return image.resolved ? image.resolved->manifest_digest : image.build_source.ref;
}

// The one of `fitting` (newest first, all active or none) that is meant.
absl::StatusOr<RowPtr<Image>> Choose(std::vector<RowPtr<Image>> fitting, const Asked& asked,
                                     const std::string& ref) {
  const bool any_hub = std::any_of(fitting.begin(), fitting.end(),
                                   [](const RowPtr<Image>& image) { return IsHubs(*image); });
  if (asked.host.empty() && any_hub) {
    std::erase_if(fitting, [](const RowPtr<Image>& image) { return !IsHubs(*image); });
  }
  std::set<std::string> targets;
  for (const RowPtr<Image>& image : fitting) targets.insert(TargetOf(*image, asked));
  if (targets.size() == 1) return fitting.front();
  std::string names;
  for (size_t i = 0; i < fitting.size() && i < 5; ++i) {
    names += (i == 0 ? "" : ", ") + fitting[i]->name + " (" + fitting[i]->build_source.ref + ")";
  }
  return Invalid("image: " + ref + " fits several images, " + names +
                 ": write the registry's host and the whole digest, or the image's name");
}

}  // namespace

bool IsDigestPrefix(std::string_view text) {
  constexpr std::string_view kAlgorithm = "sha256:";
  if (text.substr(0, kAlgorithm.size()) != kAlgorithm) return false;
  const std::string_view hex = text.substr(kAlgorithm.size());
  return hex.size() >= kMinDigestHex && hex.size() <= 64 &&
         hex.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::vector<Repository> RepositoriesOf(const Image& image) {
  if (image.build_source.kind == SourceKind::kTar) return {{"", image.build_source.path}};
  std::vector<Repository> all;
  if (const auto parsed = oci::ParseReference(image.build_source.ref); parsed.ok()) {
    all.push_back({parsed->host, parsed->repository});
  }
  if (!image.resolved) return all;
  const std::string& resolved = image.resolved->repository;
  const size_t slash = resolved.find('/');
  if (slash == std::string::npos) return all;
  Repository second{resolved.substr(0, slash), resolved.substr(slash + 1)};
  if (all.empty() || second.host != all[0].host || second.path != all[0].path) {
    all.push_back(std::move(second));
  }
  return all;
}

bool HasTag(const Image& image) {
  return image.build_source.kind == SourceKind::kOci &&
         image.build_source.ref.find('@') == std::string::npos;
}

std::string RegistryHostOf(const Image& image) {
  if (image.build_source.kind == SourceKind::kTar) return "";
  const auto parsed = oci::ParseReference(image.build_source.ref);
  return parsed.ok() ? parsed->host : "";
}

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
  const std::string owners[] = {"tenant:" + caller.tenant_id, "partner:" + caller.partner_id,
                                "platform"};
  for (const std::string& owner : owners) {
    const auto it = s.image_by_name.find(owner + "/" + front);
    if (it == s.image_by_name.end()) continue;
    RowPtr<Image> image = visible(it->second);
    if (image != nullptr && (digest.empty() || HasDigest(*image, digest))) return image;
  }
  std::optional<Asked> asked = ParseAsked(front, digest);
  // What was registered from a file is asked for as its row's url has it.
  if (!asked && !digest.empty()) asked = Asked{"", front, front, "", digest};
  if (!asked) return NotFound("image", ref);
  std::set<std::string> paths = {asked->hub_path};
  if (asked->host.empty()) paths.insert(asked->path);
  std::vector<RowPtr<Image>> retired;
  for (const std::string& owner : owners) {
    std::set<std::string, std::greater<>> ids;  // newest first
    for (const std::string& path : paths) {
      const std::set<std::string>& some = s.images_of_repository.Of(owner + " " + path);
      ids.insert(some.begin(), some.end());
    }
    std::vector<RowPtr<Image>> active;
    std::vector<RowPtr<Image>> inactive;
    for (const std::string& id : ids) {
      RowPtr<Image> image = visible(id);
      if (image == nullptr || !Fits(*image, *asked)) continue;
      (image->active ? active : inactive).push_back(std::move(image));
    }
    if (!active.empty()) return Choose(std::move(active), *asked, ref);
    if (retired.empty()) retired = std::move(inactive);
  }
  if (!retired.empty()) return Choose(std::move(retired), *asked, ref);
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
  const std::optional<Asked> tag = filter.tag.empty() ? std::nullopt : ParseAsked(filter.tag, "");
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
    if (!filter.uuids.empty() && filter.uuids.count(image.id) == 0) continue;
    if (!filter.digest.empty() &&
        !(IsDigestPrefix(filter.digest) && HasDigest(image, filter.digest))) {
      continue;
    }
    if (!filter.tag.empty() && !(tag && Fits(image, *tag)) &&
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
