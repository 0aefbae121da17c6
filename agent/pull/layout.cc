#include "agent/pull/layout.h"

#include <algorithm>
#include <utility>

#include "agent/pull/resolve.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/oci/json_guard.h"
#include "common/oci/platform.h"

namespace bunker::agent {
namespace {
std::string BlobName(const oci::Digest& digest) {
  return "blobs/sha256/" + digest.hex();
}

absl::StatusOr<std::string> ReadDocument(const FileTree& tree, const oci::Descriptor& entry) {
  ASSIGN_OR_RETURN(const FileRange range, tree.Open(BlobName(entry.digest)));
  ASSIGN_OR_RETURN(std::string body, ReadRange(range, oci::kMaxManifestBytes));
  if (body.size() != entry.size_bytes || oci::Digest::Of(body) != entry.digest) {
    return ReasonError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                       "the layout's " + BlobName(entry.digest) +
                           " has other content than its name says: copy the layout again");
  }
  return body;
}

// index.json lists whatever the layout holds. One image (perhaps under several names) is that; of
// several, the pinned one or that named "latest"; otherwise they are one image's platforms.
absl::StatusOr<oci::Descriptor> ChooseEntry(const oci::Index& index, const std::string& arch,
                                            const oci::Digest& pinned, const std::string& name) {
  std::vector<oci::Descriptor> entries;
  for (const oci::Descriptor& entry : index.manifests) {
    if (entry.media_type == oci::MediaType::kOther || entry.attestation) continue;
    if (!pinned.empty() && entry.digest == pinned) return entry;
    if (!name.empty() && entry.ref_name != name) continue;
    if (std::none_of(entries.begin(), entries.end(),
                     [&](const auto& other) { return other.digest == entry.digest; }))
      entries.push_back(entry);
  }
  if (entries.size() == 1) return entries.front();
  if (entries.empty()) {
    return ReasonError(absl::StatusCode::kNotFound, "IMAGE_NOT_FOUND",
                       name.empty() ? "the layout's index.json names no image: copy one into it"
                                    : "the layout's index.json names no image \"" + name +
                                          "\": look there for the names it has");
  }
  const bool platforms = std::all_of(entries.begin(), entries.end(),
                                     [](const auto& entry) { return entry.platform.has_value(); });
  if (platforms) return oci::ChoosePlatform(index, arch);
  for (const oci::Descriptor& entry : entries) {
    if (entry.ref_name == "latest") return entry;
  }
  return ReasonError(absl::StatusCode::kUnimplemented, "LAYER_UNSUPPORTED",
                     "the layout holds " + std::to_string(entries.size()) +
                         " images and none is named latest: make a layout with one image");
}
}  // namespace

absl::StatusOr<LocalImage> ReadLayout(const FileTree& tree, const std::string& arch,
                                      const oci::Digest& pinned, const std::string& subject,
                                      const std::string& name) {
  ASSIGN_OR_RETURN(const FileRange file, tree.Open("index.json"));
  ASSIGN_OR_RETURN(const std::string body, ReadRange(file, oci::kMaxManifestBytes));
  ASSIGN_OR_RETURN(const oci::ManifestDocument listing,
                   oci::ParseManifest(body, "application/vnd.oci.image.index.v1+json"));
  ASSIGN_OR_RETURN(const oci::Descriptor entry, ChooseEntry(*listing.index, arch, pinned, name));
  const DocumentReader reader = {
      .manifest = [&](const oci::Descriptor& wanted) -> absl::StatusOr<Document> {
        ASSIGN_OR_RETURN(std::string text, ReadDocument(tree, wanted));
        return Document{std::move(text), wanted.media_type_text, wanted.digest};
      },
      .config = [&](const oci::Descriptor& wanted) { return ReadDocument(tree, wanted); },
  };
  ASSIGN_OR_RETURN(Document top, reader.manifest(entry));
  LocalImage local;
  ASSIGN_OR_RETURN(local.image, ResolveDocument(std::move(top), arch, pinned, subject, reader));
  for (const ResolvedLayer& layer : local.image.layers) {
    ASSIGN_OR_RETURN(FileRange range, tree.Open(BlobName(layer.digest)));
    if (range.size_bytes != layer.size_bytes) {
      return ReasonError(absl::StatusCode::kDataLoss, "LAYER_CORRUPT",
                         "the layout's " + BlobName(layer.digest) + " has " +
                             std::to_string(range.size_bytes) +
                             " bytes where its manifest "
                             "declares " +
                             std::to_string(layer.size_bytes) + ": copy the layout again");
    }
    local.layers.push_back(std::move(range));
  }
  return local;
}

}  // namespace bunker::agent
