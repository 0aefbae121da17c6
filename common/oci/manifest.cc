#include "common/oci/manifest.h"

#include <array>
#include <map>
#include <utility>

#include "common/base/converters.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/oci/json_guard.h"
#include "nlohmann/json.hpp"

namespace bunker::oci {
namespace {
constexpr std::string_view kOciManifest = "application/vnd.oci.image.manifest.v1+json";
constexpr std::string_view kOciIndex = "application/vnd.oci.image.index.v1+json";
constexpr std::string_view kDockerManifest = "application/vnd.docker.distribution.manifest.v2+json";
constexpr std::string_view kDockerList =
    "application/vnd.docker.distribution.manifest.list.v2+json";
constexpr std::string_view kOciConfig = "application/vnd.oci.image.config.v1+json";
constexpr std::string_view kDockerConfig = "application/vnd.docker.container.image.v1+json";
constexpr uint64_t kMaxBlobBytes = uint64_t{1} << 50;  // so that sums of them can't overflow

std::string_view WithoutParameters(std::string_view media_type) {
  media_type = media_type.substr(0, media_type.find(';'));
  while (!media_type.empty() && media_type.back() == ' ') media_type.remove_suffix(1);
  while (!media_type.empty() && media_type.front() == ' ') media_type.remove_prefix(1);
  return media_type;
}

std::string Shown(std::string_view text) {
  std::string shown = "\"";
  for (const char c : text.substr(0, 120)) shown.push_back(c >= ' ' && c < 0x7f ? c : '?');
  return shown + "\"";
}

absl::Status Corrupt(std::string_view why) {
  return ReasonError(absl::StatusCode::kInvalidArgument, "LAYER_CORRUPT",
                     "the manifest is not valid: " + std::string(why) + "; push the image again");
}

absl::Status Unsupported(std::string_view why) {
  return ReasonError(absl::StatusCode::kUnimplemented, "LAYER_UNSUPPORTED", why);
}

absl::Status NoImage(std::string_view media_type) {
  return Unsupported("its media type " + Shown(media_type) +
                     " is not that of an image: register an image reference");
}

absl::StatusOr<Descriptor> ParseDescriptor(const nlohmann::json& json, std::string_view what) {
  if (!json.is_object()) return Corrupt(std::string(what) + " is not an object");
  Descriptor descriptor;
  descriptor.media_type_text = StringOf(json, "mediaType");
  descriptor.media_type = ManifestTypeOf(descriptor.media_type_text);
  auto digest = Digest::Parse(StringOf(json, "digest"));
  if (!digest.ok())
    return Corrupt(std::string(what) + ": " + std::string(digest.status().message()));
  descriptor.digest = *std::move(digest);
  const auto size = SizeOf(json, "size");
  if (!size || *size > kMaxBlobBytes) return Corrupt(std::string(what) + " has no valid size");
  descriptor.size_bytes = *size;
  if (const auto* platform = MemberOf(json, "platform"); platform && platform->is_object()) {
    descriptor.platform = Platform{StringOf(*platform, "os"), StringOf(*platform, "architecture"),
                                   StringOf(*platform, "variant")};
  }
  if (const auto* annotations = MemberOf(json, "annotations")) {
    descriptor.ref_name = StringOf(*annotations, "org.opencontainers.image.ref.name");
    descriptor.attestation =
        StringOf(*annotations, "vnd.docker.reference.type") == "attestation-manifest";
  }
  if (descriptor.platform && descriptor.platform->os == "unknown") descriptor.attestation = true;
  if (const auto* urls = MemberOf(json, "urls")) descriptor.has_urls = !urls->empty();
  return descriptor;
}

absl::StatusOr<std::vector<Descriptor>> ParseList(const nlohmann::json& json, const char* key,
                                                  size_t cap) {
  const nlohmann::json* list = MemberOf(json, key);
  if (list == nullptr || !list->is_array()) return Corrupt(std::string(key) + " is not a list");
  if (list->size() > cap) {
    return Unsupported("the image has " + std::to_string(list->size()) + " " + key +
                       ", more than " + std::to_string(cap) + ": squash it");
  }
  std::vector<Descriptor> descriptors;
  std::map<Digest, uint64_t> sizes;
  for (const nlohmann::json& entry : *list) {
    const std::string what = std::string(key) + "[" + std::to_string(descriptors.size()) + "]";
    ASSIGN_OR_RETURN(Descriptor descriptor, ParseDescriptor(entry, what));
    const auto [known, first] = sizes.emplace(descriptor.digest, descriptor.size_bytes);
    if (!first && known->second != descriptor.size_bytes)
      return Corrupt(std::string(key) + " gives one digest two sizes");
    descriptors.push_back(std::move(descriptor));
  }
  return descriptors;
}

absl::StatusOr<Manifest> ParseImageManifest(const nlohmann::json& json) {
  const nlohmann::json* config = MemberOf(json, "config");
  if (config == nullptr) return Corrupt("config is missing");
  Manifest manifest;
  ASSIGN_OR_RETURN(manifest.config, ParseDescriptor(*config, "config"));
  const std::string& type = manifest.config.media_type_text;
  if (!type.empty() && type != kOciConfig && type != kDockerConfig) {
    return Unsupported("it is an artefact with config type " + Shown(type) +
                       ", not a container image: register an image reference");
  }
  if (manifest.config.size_bytes > kMaxConfigBytes)
    return Unsupported("its config is larger than 4 MiB: rebuild the image with less metadata");
  ASSIGN_OR_RETURN(manifest.layers, ParseList(json, "layers", kMaxLayers));
  return manifest;
}

// What the header, the body's own claim and the body's members agree on.
absl::StatusOr<MediaType> KindOf(const nlohmann::json& json, std::string_view content_type) {
  const bool has_manifests = json.contains("manifests");
  const bool has_layers = json.contains("layers") || json.contains("config");
  if (has_manifests && has_layers)
    return Corrupt("it has both manifests and layers, so it could be read in two ways");
  if (const auto* type = MemberOf(json, "mediaType"); type != nullptr && !type->is_string())
    return Corrupt("its mediaType is no string");
  const std::string claimed = StringOf(json, "mediaType");
  MediaType kind = ManifestTypeOf(content_type);
  const std::string_view plain = WithoutParameters(content_type);
  // A file server or a layout without types says nothing more than JSON; then the body decides.
  const bool generic = plain.empty() || plain == "application/json" || plain == "text/plain" ||
                       plain == "application/octet-stream";
  if (kind == MediaType::kOther && !generic) return NoImage(plain);
  if (!claimed.empty()) {
    const MediaType claimed_kind = ManifestTypeOf(claimed);
    if (!generic && WithoutParameters(claimed) != plain)
      return Corrupt("it says " + Shown(claimed) + " but was sent as " + Shown(plain));
    if (claimed_kind == MediaType::kOther) return NoImage(claimed);
    kind = claimed_kind;
  }
  const auto schema = SizeOf(json, "schemaVersion");
  if (kind == MediaType::kDockerSchema1 || schema == 1u) {
    return Unsupported(
        "it is a Docker schema 1 manifest, which proves nothing about its layers: "
        "push the image again with a current client");
  }
  if (kind == MediaType::kOther) kind = has_manifests ? MediaType::kIndex : MediaType::kManifest;
  if (schema != 2u) return Corrupt("schemaVersion is not 2");
  if (json.contains("fsLayers") || json.contains("signatures"))
    return Corrupt("it has parts of a schema 1 manifest, so it could be read in two ways");
  if (kind == MediaType::kIndex && !has_manifests) return Corrupt("an index without manifests");
  if (kind == MediaType::kManifest && has_manifests)
    return Corrupt("it was sent as a manifest but is an index");
  return kind;
}
}  // namespace

MediaType ManifestTypeOf(std::string_view media_type) {
  media_type = WithoutParameters(media_type);
  if (media_type == kOciManifest || media_type == kDockerManifest) return MediaType::kManifest;
  if (media_type == kOciIndex || media_type == kDockerList) return MediaType::kIndex;
  if (media_type == "application/vnd.docker.distribution.manifest.v1+json" ||
      media_type == "application/vnd.docker.distribution.manifest.v1+prettyjws")
    return MediaType::kDockerSchema1;
  return MediaType::kOther;
}

std::string ManifestAccept() {
  std::string accept;
  for (const auto type : {kOciIndex, kDockerList, kOciManifest, kDockerManifest})
    accept.append(accept.empty() ? "" : ", ").append(type);
  return accept;
}

std::string_view CompressionName(Compression compression) {
  switch (compression) {
    case Compression::kNone:
      return "none";
    case Compression::kGzip:
      return "gzip";
    case Compression::kZstd:
      return "zstd";
  }
  return "none";
}

absl::StatusOr<Compression> LayerCompression(std::string_view media_type) {
  static constexpr std::array<std::pair<std::string_view, Compression>, 7> kTypes = {{
      {"application/vnd.oci.image.layer.v1.tar", Compression::kNone},
      {"application/vnd.oci.image.layer.v1.tar+gzip", Compression::kGzip},
      {"application/vnd.oci.image.layer.v1.tar+zstd", Compression::kZstd},
      {"application/vnd.docker.image.rootfs.diff.tar", Compression::kNone},
      {"application/vnd.docker.image.rootfs.diff.tar.gzip", Compression::kGzip},
      {"application/vnd.docker.image.rootfs.diff.tar.zstd", Compression::kZstd},
      {"application/vnd.docker.container.image.rootfs.diff.tar+gzip", Compression::kGzip},
  }};
  for (const auto& [name, compression] : kTypes) {
    if (media_type == name) return compression;
  }
  const bool foreign = media_type.find("nondistributable") != std::string_view::npos ||
                       media_type.find("foreign") != std::string_view::npos;
  if (foreign) {
    return Unsupported("a layer is of the type " + Shown(media_type) +
                       ", whose content lies outside the registry and is never fetched: rebuild "
                       "the image on a base without foreign layers");
  }
  return Unsupported("a layer is of the type " + Shown(media_type) +
                     ": rebuild the image with tar layers, plain, gzip or zstd");
}

absl::StatusOr<ManifestDocument> ParseManifest(std::string_view body,
                                               std::string_view content_type) {
  if (body.size() > kMaxManifestBytes) return Unsupported("the manifest is larger than 4 MiB");
  auto json = ParseObject(body, "the manifest");
  if (!json.ok()) return Corrupt(ToStd(json.status().message()));
  ASSIGN_OR_RETURN(const MediaType kind, KindOf(*json, content_type));
  ManifestDocument document;
  if (kind == MediaType::kIndex) {
    document.index.emplace();
    ASSIGN_OR_RETURN(document.index->manifests, ParseList(*json, "manifests", kMaxIndexEntries));
  } else {
    ASSIGN_OR_RETURN(document.manifest, ParseImageManifest(*json));
  }
  return document;
}

}  // namespace bunker::oci
