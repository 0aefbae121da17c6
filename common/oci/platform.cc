#include "common/oci/platform.h"

#include <algorithm>

#include "common/base/converters.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::oci {
namespace {
bool IsImage(const Descriptor& entry) {
  return entry.media_type == MediaType::kManifest || entry.media_type == MediaType::kIndex;
}
// How well an entry suits: 0 not at all, 2 the architecture itself, 1 its baseline by name.
int Suitability(const Platform& platform, std::string_view wanted) {
  if (platform.os != "linux" || !IsArchitecture(platform.architecture, wanted)) return 0;
  std::string_view variant = platform.variant;
  if (variant.empty()) return 2;
  if (variant.front() == 'v') variant.remove_prefix(1);
  return variant == (wanted == "arm64" ? "8" : "1") ? 1 : 0;
}
}  // namespace

absl::StatusOr<std::string> GoArchitecture(std::string_view arch) {
  if (arch == "X86_64") return std::string("amd64");
  if (arch == "AARCH64") return std::string("arm64");
  return absl::InvalidArgumentError("arch must be X86_64 or AARCH64");
}

bool IsArchitecture(std::string_view offered, std::string_view wanted) {
  return offered == wanted || (wanted == "amd64" && offered == "x86_64") ||
         (wanted == "arm64" && offered == "aarch64");
}

std::string ArchOfGoArchitecture(std::string_view architecture) {
  if (architecture == "amd64") return "X86_64";
  if (architecture == "arm64") return "AARCH64";
  return "";
}

std::string OfferedPlatforms(const Index& index) {
  std::vector<std::string> offers;
  for (const Descriptor& entry : index.manifests) {
    if (!IsImage(entry) || !entry.platform || entry.attestation) continue;
    std::string offer = entry.platform->os + "/" + entry.platform->architecture;
    if (!entry.platform->variant.empty()) offer += "/" + entry.platform->variant;
    if (std::find(offers.begin(), offers.end(), offer) == offers.end()) offers.push_back(offer);
  }
  std::string list;
  for (size_t i = 0; i < offers.size() && i < 20; ++i) list += (i ? ", " : "") + offers[i];
  if (offers.size() > 20) list += ", …";
  return list.empty() ? "nothing" : list;
}

absl::StatusOr<Descriptor> ChoosePlatform(const Index& index, std::string_view arch) {
  ASSIGN_OR_RETURN(const std::string wanted, GoArchitecture(arch));
  const Descriptor* unnamed = nullptr;
  const Descriptor* best = nullptr;
  int best_suits = 0;
  for (const Descriptor& entry : index.manifests) {
    if (!IsImage(entry) || entry.attestation) continue;
    if (!entry.platform) {
      if (unnamed == nullptr) unnamed = &entry;
      continue;
    }
    if (const int suits = Suitability(*entry.platform, wanted); suits > best_suits) {
      best = &entry;
      best_suits = suits;
    }
  }
  if (best != nullptr) return *best;
  if (unnamed != nullptr) return *unnamed;
  return ReasonError(absl::StatusCode::kNotFound, "ARCH_UNAVAILABLE",
                     "the image offers " + OfferedPlatforms(index) + " but not linux/" + wanted +
                         ": push a build for it, or register the image for another arch");
}

}  // namespace bunker::oci
