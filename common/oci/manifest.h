// Image manifests and indexes of both families: Docker schema 2 and OCI.
//
// What a registry sends is hostile until parsed: sizes, counts and depth are capped, digests are
// checked, and a document that could be read as both a manifest and an index is refused.
//
// Thread-safe: values and free functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/oci/digest.h"

namespace bunker::oci {

inline constexpr size_t kMaxManifestBytes = 4u << 20;
inline constexpr size_t kMaxConfigBytes = 4u << 20;
inline constexpr size_t kMaxLayers = 256;
inline constexpr size_t kMaxIndexEntries = 1024;
inline constexpr int kMaxIndexDepth = 2;  // an index, and one nested in it

enum class MediaType { kOther, kManifest, kIndex, kDockerSchema1 };
enum class Compression { kNone, kGzip, kZstd };

// Both spellings of a kind; parameters such as "; charset=utf-8" are ignored.
MediaType ManifestTypeOf(std::string_view media_type);
// The value of an Accept header for manifests and indexes of both families.
std::string ManifestAccept();
std::string_view CompressionName(Compression compression);  // "none" | "gzip" | "zstd"

// kUnimplemented with LAYER_UNSUPPORTED for foreign, non-distributable, encrypted and unknown
// layers; the message names the media type and the remedy.
absl::StatusOr<Compression> LayerCompression(std::string_view media_type);

struct Platform {
  std::string os;
  std::string architecture;
  std::string variant;
};

struct Descriptor {
  std::string media_type_text;
  MediaType media_type = MediaType::kOther;
  Digest digest;
  uint64_t size_bytes = 0;
  std::optional<Platform> platform;
  std::string ref_name;      // annotation org.opencontainers.image.ref.name
  bool attestation = false;  // says something about another image and is none itself
  bool has_urls = false;     // foreign content; such URLs are never fetched
};

struct Index {
  std::vector<Descriptor> manifests;
};

struct Manifest {
  Descriptor config;
  std::vector<Descriptor> layers;
};

// Exactly one of the two is set.
struct ManifestDocument {
  std::optional<Manifest> manifest;
  std::optional<Index> index;
};

// Annotations, an artifactType, a subject and content embedded in a descriptor (`data`) are carried
// along by images that have them and change nothing here; what is believed is the digest.
//
// `content_type` is the HTTP header or the descriptor's media type; "" where there is none, then
// the body's `mediaType` decides, or else what the body holds. A body whose `mediaType` contradicts
// it is refused. Errors: kInvalidArgument with LAYER_CORRUPT (not what it claims to be), or
// kUnimplemented with LAYER_UNSUPPORTED (known, but not taken: schema 1, artefacts, caps).
absl::StatusOr<ManifestDocument> ParseManifest(std::string_view body,
                                               std::string_view content_type);

}  // namespace bunker::oci
