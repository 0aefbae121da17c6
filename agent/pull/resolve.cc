#include "agent/pull/resolve.h"

#include <utility>

#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/oci/platform.h"

namespace bunker::agent {
namespace {
absl::StatusOr<std::vector<ResolvedLayer>> LayersOf(const oci::Manifest& manifest,
                                                    const oci::ImageConfig& config) {
  if (config.diff_ids.size() != manifest.layers.size()) {
    return ReasonError(absl::StatusCode::kInvalidArgument, "LAYER_CORRUPT",
                       "the manifest has " + std::to_string(manifest.layers.size()) +
                           " layers but the config has " + std::to_string(config.diff_ids.size()) +
                           " diff ids: rebuild and push the image");
  }
  if (manifest.layers.empty()) {
    return ReasonError(absl::StatusCode::kUnimplemented, "LAYER_UNSUPPORTED",
                       "the image has no layers, so there is nothing to boot: build it with at "
                       "least one");
  }
  std::vector<ResolvedLayer> layers;
  for (size_t i = 0; i < manifest.layers.size(); ++i) {
    const oci::Descriptor& layer = manifest.layers[i];
    ResolvedLayer resolved{.digest = layer.digest,
                           .size_bytes = layer.size_bytes,
                           .compression = oci::Compression::kNone,
                           .diff_id = config.diff_ids[i]};
    ASSIGN_OR_RETURN(resolved.compression, oci::LayerCompression(layer.media_type_text));
    layers.push_back(std::move(resolved));
  }
  return layers;
}

}  // namespace

absl::Status CheckPlatform(const oci::ImageConfig& config, const std::string& arch) {
  ASSIGN_OR_RETURN(const std::string wanted, oci::GoArchitecture(arch));
  const bool os_right = config.os.empty() || config.os == "linux";
  const bool arch_right =
      config.architecture.empty() || oci::IsArchitecture(config.architecture, wanted);
  if (os_right && arch_right) return absl::OkStatus();
  std::string offer;
  for (const char c : (config.os + "/" + config.architecture).substr(0, 80))
    offer.push_back(c >= ' ' && c < 0x7f ? c : '?');
  return ReasonError(absl::StatusCode::kNotFound, "ARCH_UNAVAILABLE",
                     "the image offers " + offer + " but not linux/" + wanted +
                         ": push a build for it, or register the image for another arch");
}

absl::StatusOr<ResolvedImage> ResolveDocument(Document top, const std::string& arch,
                                              const oci::Digest& pinned, std::string_view subject,
                                              const DocumentReader& reader) {
  const auto resolve = [&]() -> absl::StatusOr<ResolvedImage> {
    ResolvedImage image;
    Document document = std::move(top);
    oci::MediaType expected = oci::MediaType::kOther;  // any
    for (int depth = 0;; ++depth) {
      ASSIGN_OR_RETURN(oci::ManifestDocument parsed,
                       oci::ParseManifest(document.body, document.content_type));
      const auto found = parsed.manifest ? oci::MediaType::kManifest : oci::MediaType::kIndex;
      if (expected != oci::MediaType::kOther && expected != found) {
        return ReasonError(absl::StatusCode::kInvalidArgument, "LAYER_CORRUPT",
                           "its index lists " + document.digest.str() +
                               " as a thing that it is "
                               "not (a manifest, an index): push the image again");
      }
      if (parsed.manifest) {
        image.manifest_digest = document.digest;
        if (!pinned.empty() && pinned != document.digest) {
          return ReasonError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                             "its manifest here is " + document.digest.str() + ", but " +
                                 pinned.str() +
                                 " is registered: provide the same content on "
                                 "every worker, or register the new content under a new name");
        }
        ASSIGN_OR_RETURN(const std::string config, reader.config(parsed.manifest->config));
        ASSIGN_OR_RETURN(image.config, oci::ParseImageConfig(config));
        RETURN_IF_ERROR(CheckPlatform(image.config, arch));
        if (!image.config.architecture.empty()) {  // by its one name, whatever the builder wrote
          ASSIGN_OR_RETURN(image.config.architecture, oci::GoArchitecture(arch));
        }
        ASSIGN_OR_RETURN(image.layers, LayersOf(*parsed.manifest, image.config));
        return image;
      }
      if (depth == oci::kMaxIndexDepth) {
        return ReasonError(absl::StatusCode::kUnimplemented, "LAYER_UNSUPPORTED",
                           "its indexes are nested more than twice: push a flat index");
      }
      if (image.index_digest.empty()) image.index_digest = document.digest;
      ASSIGN_OR_RETURN(const oci::Descriptor chosen, oci::ChoosePlatform(*parsed.index, arch));
      ASSIGN_OR_RETURN(document, reader.manifest(chosen));
      expected = chosen.media_type;
    }
  };
  auto image = resolve();
  if (!image.ok()) {
    // Readers name the image themselves; the rest does not know it.
    const bool named = std::string(image.status().message()).find(subject) != std::string::npos;
    return named ? image.status() : Annotate(image.status(), subject);
  }
  return image;
}

}  // namespace bunker::agent
