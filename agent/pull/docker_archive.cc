// Reading what `docker save` wrote before it wrote OCI layouts: manifest.json names a config and
// the layers, mostly plain tars.
#include <algorithm>
#include <string>
#include <utility>

#include "agent/pull/layout.h"
#include "agent/pull/resolve.h"
#include "agent/pull/tar_decoder.h"
#include "agent/pull/tar_digest.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/oci/json_guard.h"
#include "nlohmann/json.hpp"

namespace bunker::agent {
namespace {
absl::Status Unsupported(const std::string& why) {
  return ReasonError(absl::StatusCode::kUnimplemented, "LAYER_UNSUPPORTED", why);
}

// manifest.json is a list of images.
absl::StatusOr<nlohmann::json> TheImage(const FileTree& tree) {
  ASSIGN_OR_RETURN(const FileRange file, tree.Open("manifest.json"));
  ASSIGN_OR_RETURN(const std::string text, ReadRange(file, oci::kMaxManifestBytes));
  // Its form is fixed and flat: deeper text is refused before anything is built of it.
  const auto wrapped = oci::ParseObject("{\"images\":" + text + "}", "manifest.json");
  if (!wrapped.ok()) return WithReason(wrapped.status(), "LAYER_CORRUPT");
  const auto images = wrapped->value("images", nlohmann::json());
  if (!images.is_array() || images.empty())
    return Unsupported("the archive's manifest.json names no image: save it again");
  if (images.size() > 1) {
    return Unsupported("the archive holds " + std::to_string(images.size()) +
                       " images: save one alone");
  }
  return images.front();
}

absl::StatusOr<ResolvedLayer> LayerOf(const FileRange& range, const oci::Digest& diff_id,
                                      const StopFn& stop) {
  ResolvedLayer layer{.digest = diff_id,
                      .size_bytes = range.size_bytes,
                      .compression = oci::Compression::kNone,
                      .diff_id = diff_id};
  FileRange head = range;
  head.size_bytes = std::min<uint64_t>(range.size_bytes, 512);
  ASSIGN_OR_RETURN(const std::string start, ReadRange(head, 512));
  ASSIGN_OR_RETURN(layer.compression, DetectCompression(start));
  if (layer.compression == oci::Compression::kNone) return layer;  // the file is the diff
  ASSIGN_OR_RETURN(const TarDigests digests, DigestTar(range, stop));
  layer.digest = digests.blob;
  return layer;
}
}  // namespace

absl::StatusOr<LocalImage> ReadDockerArchive(const FileTree& tree, const std::string& arch,
                                             const oci::Digest& pinned, const StopFn& stop) {
  ASSIGN_OR_RETURN(const nlohmann::json entry, TheImage(tree));
  ASSIGN_OR_RETURN(const FileRange file, tree.Open(oci::StringOf(entry, "Config")));
  ASSIGN_OR_RETURN(const std::string config, ReadRange(file, oci::kMaxConfigBytes));
  LocalImage local;
  // The config names the diff ids, so that its digest stands for the whole image.
  local.image.manifest_digest =
      oci::Digest::Of("bunker docker archive v1\n" + oci::Digest::Of(config).str() + "\n");
  if (!pinned.empty() && pinned != local.image.manifest_digest) {
    return ReasonError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                       "its content here differs from what is registered (" + pinned.str() +
                           "): provide the same file on every worker, or register the new "
                           "content under a new name");
  }
  ASSIGN_OR_RETURN(local.image.config, oci::ParseImageConfig(config));
  RETURN_IF_ERROR(CheckPlatform(local.image.config, arch));
  const nlohmann::json* layers = oci::MemberOf(entry, "Layers");
  if (layers == nullptr || !layers->is_array() || layers->empty() ||
      layers->size() != local.image.config.diff_ids.size()) {
    return ReasonError(absl::StatusCode::kDataLoss, "LAYER_CORRUPT",
                       "the archive's manifest.json and its config name different layers: save "
                       "the image again");
  }
  for (size_t i = 0; i < layers->size(); ++i) {
    const nlohmann::json& name = (*layers)[i];
    ASSIGN_OR_RETURN(FileRange range, tree.Open(name.is_string() ? name.get<std::string>() : ""));
    ASSIGN_OR_RETURN(ResolvedLayer layer, LayerOf(range, local.image.config.diff_ids[i], stop));
    local.image.layers.push_back(std::move(layer));
    local.layers.push_back(std::move(range));
  }
  return local;
}

}  // namespace bunker::agent
