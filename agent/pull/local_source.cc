#include "agent/pull/local_source.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "agent/pull/archive_unpacker.h"
#include "agent/pull/layout.h"
#include "agent/pull/local_folder.h"
#include "agent/pull/progress_meter.h"
#include "agent/pull/tar_decoder.h"
#include "agent/pull/tar_digest.h"
#include "agent/pull/tar_index.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/oci/platform.h"

namespace bunker::agent {
namespace {
constexpr size_t kHeadBytes = 64u << 10;

class LocalSource final : public ImageSource {
 public:
  LocalSource(const PullConfig& config, SourceSpec spec, oci::Digest pinned, std::string arch)
      : config_(config),
        spec_(std::move(spec)),
        pinned_(std::move(pinned)),
        arch_(std::move(arch)),
        subject_("tar " + spec_.tar_path) {}

  absl::StatusOr<ResolvedImage> Resolve(CancelToken& cancel) override {
    auto local = Read([&cancel] { return cancel.cancelled(); });
    if (!local.ok()) {
      const bool named = std::string(local.status().message()).find(subject_) != std::string::npos;
      return named ? local.status() : Annotate(local.status(), subject_);
    }
    local_ = *std::move(local);
    local_->image.repository = spec_.tar_path;
    local_->image.source = "file";
    return local_->image;
  }

  absl::StatusOr<std::vector<LayerFile>> Fetch(const ResolvedImage& image, oci::BlobCache& blobs,
                                               CancelToken& cancel,
                                               const PullProgress& progress) override {
    if (!local_ || local_->image.manifest_digest != image.manifest_digest)
      return absl::FailedPreconditionError("Fetch() takes what Resolve() returned");
    ProgressMeter meter(local_->layers.size(), image.CompressedBytes(), progress);
    std::vector<LayerFile> files;
    for (size_t i = 0; i < local_->layers.size(); ++i) {
      RETURN_IF_ERROR(cancel.Check());
      const ResolvedLayer& layer = image.layers[i];
      LayerFile file{.path = "",
                     .digest = layer.digest,
                     .size_bytes = layer.size_bytes,
                     .compression = layer.compression,
                     .diff_id = layer.diff_id,
                     .hold = nullptr};
      RETURN_IF_ERROR(Place(i, blobs, cancel, meter, &file));
      meter.Set(i, layer.size_bytes);
      files.push_back(std::move(file));
    }
    return files;
  }

 private:
  absl::StatusOr<LocalImage> Read(const StopFn& stop) {
    ASSIGN_OR_RETURN(OpenedFile opened,
                     OpenInTarRoot(config_.tar_root, spec_.scope, spec_.tenant_id, spec_.tar_path));
    if (opened.is_folder)
      return ReadLayout(*MakeFolderTree(std::move(opened.fd)), arch_, pinned_, subject_,
                        spec_.layout_name);
    const FileRange file{.fd = std::make_shared<const UniqueFd>(std::move(opened.fd)),
                         .offset = 0,
                         .size_bytes = opened.size_bytes,
                         .whole_file = true};
    return ReadOne(file, stop);
  }

  // An archive that holds an image, or else a root file system.
  absl::StatusOr<LocalImage> ReadOne(const FileRange& file, const StopFn& stop) {
    FileRange head = file;
    head.size_bytes = std::min<uint64_t>(file.size_bytes, kHeadBytes);
    ASSIGN_OR_RETURN(const std::string start, ReadRange(head, kHeadBytes));
    ASSIGN_OR_RETURN(const oci::Compression compression, DetectCompression(start));
    if (compression == oci::Compression::kNone) {
      ASSIGN_OR_RETURN(auto image, ReadArchive(file, stop));
      if (image) return *std::move(image);
    } else {
      bool maybe_image = false;
      ASSIGN_OR_RETURN(const TarDigests digests, DigestUnlessImage(file, stop, &maybe_image));
      if (!maybe_image) return Rootfs(file, digests);
      ASSIGN_OR_RETURN(const FileRange plain,
                       UnpackArchive(file, config_.scratch_dir, config_.max_archive_bytes, stop));
      ASSIGN_OR_RETURN(auto image, ReadArchive(plain, stop));
      if (image) return *std::move(image);
    }
    ASSIGN_OR_RETURN(const TarDigests digests, DigestTar(file, stop));
    return Rootfs(file, digests);
  }

  // nullopt where the archive holds no image.
  absl::StatusOr<std::optional<LocalImage>> ReadArchive(const FileRange& file, const StopFn& stop) {
    ASSIGN_OR_RETURN(const auto archive, TarIndex::Read(file, stop));
    std::optional<LocalImage> image;
    if (archive->Has("oci-layout") && archive->Has("index.json")) {
      ASSIGN_OR_RETURN(image, ReadLayout(*archive, arch_, pinned_, subject_, spec_.layout_name));
    } else if (archive->Has("manifest.json") && HoldsLayers(*archive)) {
      ASSIGN_OR_RETURN(image, ReadDockerArchive(*archive, arch_, pinned_, stop));
    }
    return image;
  }

  // A root file system may have a manifest.json of its own; docker's is a list.
  static bool HoldsLayers(const TarIndex& archive) {
    const auto range = archive.Open("manifest.json");
    if (!range.ok()) return false;
    FileRange start = *range;
    start.size_bytes = std::min<uint64_t>(start.size_bytes, kHeadBytes);
    const auto text = agent::ReadRange(start, kHeadBytes);
    return text.ok() && text->find_first_not_of(" \t\r\n") != std::string::npos &&
           (*text)[text->find_first_not_of(" \t\r\n")] == '[' &&
           text->find("\"Layers\"") != std::string::npos;
  }

  // A tarball is one layer. What stands for its manifest is made of its content, not of its
  // compression or name, so that workers agree whenever the files mean the same.
  absl::StatusOr<LocalImage> Rootfs(const FileRange& file, const TarDigests& digests) {
    LocalImage local;
    local.image.manifest_digest =
        oci::Digest::Of("bunker rootfs tar v1\n" + digests.diff_id.str() + "\n");
    if (!pinned_.empty() && pinned_ != local.image.manifest_digest) {
      return ReasonError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                         "its content here differs from what is registered (" + pinned_.str() +
                             "): provide the same file on every worker, or register the new "
                             "content under a new name");
    }
    local.image.config.os = "linux";
    ASSIGN_OR_RETURN(local.image.config.architecture, oci::GoArchitecture(arch_));
    local.image.config.diff_ids = {digests.diff_id};
    local.image.layers = {{.digest = digests.blob,
                           .size_bytes = file.size_bytes,
                           .compression = digests.compression,
                           .diff_id = digests.diff_id}};
    local.layers = {file};
    return local;
  }

  // A file of its own is handed on as it is, by the descriptor that was checked; a piece of an
  // archive is copied into the blob store.
  absl::Status Place(size_t index, oci::BlobCache& blobs, CancelToken& cancel, ProgressMeter& meter,
                     LayerFile* file) {
    const FileRange& range = local_->layers[index];
    if (range.whole_file) {
      file->path = PathOfFd(range.fd->get());
      file->hold = range.fd;
      return absl::OkStatus();
    }
    const StopFn stop = [&cancel] { return cancel.cancelled(); };
    const auto copy = [&](oci::BlobWriter& writer) {
      return ForEachPiece(range, writer.offset(), stop, [&](std::string_view piece) {
        RETURN_IF_ERROR(writer.Write(piece));
        meter.Set(index, writer.offset());
        return absl::OkStatus();
      });
    };
    ASSIGN_OR_RETURN(auto blob, blobs.GetOrFetch(file->digest, file->size_bytes,
                                                 "file " + spec_.tar_path, copy, stop));
    file->path = blob->path();
    file->hold = std::move(blob);
    return absl::OkStatus();
  }

  const PullConfig& config_;
  const SourceSpec spec_;
  const oci::Digest pinned_;
  const std::string arch_;
  const std::string subject_;
  std::optional<LocalImage> local_;
};

}  // namespace

std::unique_ptr<ImageSource> OpenLocalSource(const PullConfig& config, const SourceSpec& spec,
                                             oci::Digest pinned, const std::string& arch) {
  return std::make_unique<LocalSource>(config, spec, std::move(pinned), arch);
}

}  // namespace bunker::agent
