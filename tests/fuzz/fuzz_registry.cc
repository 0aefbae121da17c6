// What a registry says: manifests, indexes, configs, challenges; and what a tenant calls an image.
// The first byte says which.
#include <cstdint>
#include <string>
#include <string_view>

#include "agent/pull/registry_auth.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/oci/digest.h"
#include "common/oci/image_config.h"
#include "common/oci/manifest.h"
#include "common/oci/reference.h"

namespace {

constexpr std::string_view kTypes[] = {"", "application/vnd.oci.image.manifest.v1+json",
                                       "application/vnd.oci.image.index.v1+json",
                                       "application/vnd.docker.distribution.manifest.v2+json",
                                       "application/vnd.docker.distribution.manifest.list.v2+json"};

void CheckDescriptor(const bunker::oci::Descriptor& descriptor) {
  BUNKER_CHECK(bunker::oci::Digest::Parse(descriptor.digest.str()).ok());
}

void Manifest(std::string_view text, uint8_t type) {
  const auto document = bunker::oci::ParseManifest(text, kTypes[type % std::size(kTypes)]);
  if (!document.ok()) {
    BUNKER_CHECK(!bunker::ReasonOf(document.status()).empty());
    return;
  }
  BUNKER_CHECK(document->manifest.has_value() != document->index.has_value());
  if (document->manifest) {
    BUNKER_CHECK(document->manifest->layers.size() <= bunker::oci::kMaxLayers);
    CheckDescriptor(document->manifest->config);
    for (const auto& layer : document->manifest->layers) CheckDescriptor(layer);
  } else {
    for (const auto& entry : document->index->manifests) CheckDescriptor(entry);
  }
}

void Config(std::string_view text) {
  const auto config = bunker::oci::ParseImageConfig(text);
  if (!config.ok()) return;
  for (const auto& id : config->diff_ids) BUNKER_CHECK(bunker::oci::Digest::Parse(id.str()).ok());
}

// What was understood is written in a way that is understood the same.
void Reference(std::string_view text) {
  const auto reference = bunker::oci::ParseReference(text);
  if (!reference.ok()) return;
  const std::string written = reference->ToString();
  const auto again = bunker::oci::ParseReference(written);
  BUNKER_CHECK(again.ok() && again->ToString() == written);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 8) {
    case 0:
      Config(text);
      break;
    case 1:
      Reference(text);
      break;
    case 2:
      (void)bunker::agent::ParseChallenge(text);
      break;
    default:
      Manifest(text, static_cast<uint8_t>(data[0] / 8));
  }
  return 0;
}
