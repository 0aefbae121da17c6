#include "agent/reconcile/image_job.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "agent/reconcile/pull_and_bake.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

using Report = std::function<void(const link::v1::ImageObservation&)>;

// Keeps the row that is told while a job runs: its stage, bytes, rate and the stages' times.
class Progress {
 public:
  Progress(const link::v1::ImageAssignment& wanted, const Report& report) : report_(report) {
    row_.set_image_id(wanted.image_id());
    row_.set_attempt(wanted.attempt());
    row_.set_status(link::v1::ImageObservation::BUILDING);
    row_.set_source(wanted.source().has_oci_ref() ? "registry" : "file");
  }

  void Enter(const std::string& stage) {
    EndStage();
    row_.set_stage(stage);
    row_.set_bytes_done(0);
    row_.set_bytes_total(0);
    row_.set_rate_bytes_per_s(0);
    stage_began_ = absl::Now();
    report_(row_);
  }

  void Bytes(uint64_t done, uint64_t total) {
    row_.set_bytes_done(done);
    row_.set_bytes_total(total);
    const double seconds = absl::ToDoubleSeconds(absl::Now() - stage_began_);
    if (seconds > 0.05)
      row_.set_rate_bytes_per_s(static_cast<uint64_t>(static_cast<double>(done) / seconds));
    report_(row_);
  }

  void EndStage() {
    if (row_.stage().empty()) return;
    link::v1::StageTime* time = row_.add_stages();
    time->set_name(row_.stage());
    time->set_ms(absl::ToDoubleMilliseconds(absl::Now() - stage_began_));
    row_.clear_stage();
  }

  link::v1::ImageObservation& row() { return row_; }

 private:
  const Report& report_;
  link::v1::ImageObservation row_;
  absl::Time stage_began_;
};

void FillResolved(const ResolvedImage& image, link::v1::Resolved* resolved) {
  resolved->set_repository(image.repository);
  resolved->set_manifest_digest(image.manifest_digest.str());
  resolved->set_index_digest(image.index_digest.str());
  resolved->set_layers_bytes(image.CompressedBytes());
  for (const ResolvedLayer& layer : image.layers) resolved->add_diff_ids(layer.diff_id.str());
  link::v1::ImageConfig* config = resolved->mutable_config();
  for (const auto& word : image.config.entrypoint) config->add_entrypoint(word);
  for (const auto& word : image.config.cmd) config->add_cmd(word);
  for (const auto& entry : image.config.env) config->add_env(entry);
  for (const auto& port : image.config.exposed_ports) config->add_exposed_ports(port);
  config->set_working_dir(image.config.working_dir);
  config->set_user(image.config.user);
  config->set_arch(image.config.architecture);
}

std::string RecipeHex(const std::vector<std::string>& diff_ids) {
  const std::string digest = RecipeDigest(diff_ids);
  return digest.substr(digest.find(':') + 1);
}

// The SIZE_CAP_EXCEEDED of an image that was baked under a larger cap.
absl::Status CheckCap(const BakedImage& image, uint32_t size_mib) {
  const uint64_t needed_mib = (image.apparent_bytes + (1 << 20) - 1) >> 20;
  if (needed_mib <= size_mib) return absl::OkStatus();
  return ReasonError(absl::StatusCode::kResourceExhausted, "SIZE_CAP_EXCEEDED",
                     "the image needs " + std::to_string(needed_mib) + " MiB, and size_mib is " +
                         std::to_string(size_mib) + ": register it again with a larger size_mib");
}

// Asked for anew by each pull, so that it lives no longer than that.
absl::StatusOr<std::unique_ptr<ImageSource>> OpenSource(const ImageJobParts& parts,
                                                        const link::v1::ImageAssignment& wanted,
                                                        const std::string& pinned,
                                                        CancelToken& cancel) {
  SourceSpec spec;
  spec.oci_ref = wanted.source().oci_ref();
  spec.tar_path = wanted.source().tar_path();
  spec.tenant_id = wanted.tenant_id();
  spec.scope = wanted.scope();
  if (!wanted.credential_id().empty()) {
    absl::StatusOr<RegistryLogin> login =
        absl::FailedPreconditionError("this agent can't ask for logins");
    if (parts.logins != nullptr) login = parts.logins->LoginOf(wanted.image_id(), cancel);
    RETURN_IF_ERROR(cancel.Check());
    if (!login.ok()) return WithReason(login.status(), "REGISTRY_AUTH_FAILED");
    spec.login = *std::move(login);
  }
  return parts.puller.OpenSource(spec, pinned, wanted.arch());
}

class Job {
 public:
  Job(const ImageJobParts& parts, const link::v1::ImageAssignment& wanted, CancelToken& cancel,
      const Report& report)
      : parts_(parts), wanted_(wanted), cancel_(cancel), progress_(wanted, report) {}

  absl::Status Run() {
    RETURN_IF_ERROR(Resolve());
    const std::string recipe = RecipeHex(diff_ids_);
    progress_.row().set_recipe_digest(recipe);
    ASSIGN_OR_RETURN(const auto lease, parts_.images.Acquire(recipe, cancel_));
    if (const auto there = parts_.images.Find(recipe)) {
      progress_.row().set_source("cache");
      RETURN_IF_ERROR(CheckCap(*there, wanted_.size_mib()));
      Finish(*there);
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(const BakedImage image, PullAndBakeInto(*lease));
    BUNKER_CHECK(image.recipe_digest == recipe);
    progress_.Enter("verifying");
    RETURN_IF_ERROR(cancel_.Check());
    RETURN_IF_ERROR(parts_.images.Publish(*lease, image));
    Finish(image);
    return absl::OkStatus();
  }

  Progress& progress() { return progress_; }

 private:
  absl::Status Resolve() {
    progress_.Enter("resolving");
    ASSIGN_OR_RETURN(source_, OpenSource(parts_, wanted_, wanted_.manifest_digest(), cancel_));
    ASSIGN_OR_RETURN(resolved_, source_->Resolve(cancel_));
    for (const ResolvedLayer& layer : resolved_.layers) diff_ids_.push_back(layer.diff_id.str());
    FillResolved(resolved_, progress_.row().mutable_resolved());
    return absl::OkStatus();
  }

  absl::StatusOr<BakedImage> PullAndBakeInto(const ImageStore::Lease& lease) {
    BakeOptions options;
    options.size_mib = wanted_.size_mib();
    options.out_path = lease.temporary_rootfs_path();
    options.tree_path = options.out_path + ".verity";
    options.limits = parts_.bake_limits;
    options.child_uid = parts_.bake_uid;
    options.child_gid = parts_.bake_uid;
    progress_.Enter("pulling");
    const auto bytes = [this](uint64_t done, uint64_t total) { progress_.Bytes(done, total); };
    const auto summary = PullAndBake(
        *source_, resolved_, parts_.blobs, std::move(options), cancel_,
        {.pulled = bytes, .pull_ended = [this] { progress_.Enter("baking"); }, .baked = bytes});
    if (!summary.ok()) return Failed(summary.status());
    Log(Severity::kInfo, "image.baked",
        {{"image", wanted_.image_id()},
         {"recipe", summary->recipe_digest},
         {"bytes_in", summary->compressed_bytes},
         {"bytes_out", summary->apparent_bytes},
         {"entries", summary->entries},
         {"dropped_xattrs", summary->dropped_xattr_count},
         {"wall_s", summary->wall_seconds},
         {"cpu_s", summary->cpu_seconds},
         {"peak_rss", summary->peak_rss_bytes}});
    BakedImage image{RecipeHex(summary->diff_ids),
                     summary->rootfs_digest,
                     summary->apparent_bytes,
                     summary->allocated_bytes,
                     {},
                     absl::Now()};
    for (const ResolvedLayer& layer : resolved_.layers) image.blobs.push_back(layer.digest.str());
    return image;
  }

  // A full disk has better uses than what may never be asked for again.
  absl::Status Failed(const absl::Status& status) {
    if (ReasonOf(status) == "DISK_FULL") parts_.blobs.DropPartials(absl::ZeroDuration());
    return status;
  }

  void Finish(const BakedImage& image) {
    progress_.EndStage();
    parts_.images.Pin(image.recipe_digest);
    link::v1::ImageObservation& row = progress_.row();
    row.set_status(link::v1::ImageObservation::READY);
    row.set_rootfs_digest(image.rootfs_digest);
    row.set_apparent_bytes(image.apparent_bytes);
    row.set_allocated_bytes(image.allocated_bytes);
    row.set_bytes_done(resolved_.CompressedBytes());
    row.set_bytes_total(resolved_.CompressedBytes());
    row.set_rate_bytes_per_s(0);
  }

  const ImageJobParts& parts_;
  const link::v1::ImageAssignment& wanted_;
  CancelToken& cancel_;
  Progress progress_;
  std::unique_ptr<ImageSource> source_;
  ResolvedImage resolved_;
  std::vector<std::string> diff_ids_;
};

}  // namespace

link::v1::TagCheck RunTagCheck(const ImageJobParts& parts, const link::v1::ImageAssignment& wanted,
                               CancelToken& cancel) {
  link::v1::TagCheck check;
  check.set_serial(wanted.tag_check());
  const auto look = [&]() -> absl::StatusOr<oci::Digest> {
    ASSIGN_OR_RETURN(const auto source, OpenSource(parts, wanted, "", cancel));
    return source->LookUpTag(cancel);
  };
  const auto digest = look();
  if (digest.ok()) {
    check.set_digest(digest->str());
  } else {
    Log(Severity::kInfo, "image.tag_not_looked_up",
        {{"image", wanted.image_id()}, {"why", std::string(digest.status().message())}});
  }
  return check;
}

bool IsRetryable(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  if (reason == "DISK_FULL" || reason == "OUT_OF_MEMORY" || reason == "INTERNAL") return true;
  return reason.empty() || IsRetryablePullError(status);
}

link::v1::ImageObservation RunImageJob(const ImageJobParts& parts,
                                       const link::v1::ImageAssignment& wanted, CancelToken& cancel,
                                       const Report& report) {
  Job job(parts, wanted, cancel, report);
  const absl::Status status = job.Run();
  link::v1::ImageObservation row = job.progress().row();
  if (status.ok()) return row;
  const std::string reason = ReasonOf(status);
  row.set_status(link::v1::ImageObservation::FAILED);
  row.set_error_code(reason.empty() ? "INTERNAL" : reason);
  row.set_error_message(std::string(status.message()));
  row.set_retryable(IsRetryable(status));
  row.clear_recipe_digest();
  return row;
}

}  // namespace bunker::agent
