#include "agent/reconcile/image_runner.h"

#include <set>
#include <utility>

#include "common/base/log.h"

namespace bunker::agent {
namespace {
// A failed bake that is tried again finds its layers for so long.
constexpr absl::Duration kUnusedBlobLife = absl::Hours(1);
}  // namespace

void ImageRunner::Ensure(const link::v1::ImageAssignment& wanted,
                         const link::v1::ImageObservation& known,
                         std::shared_ptr<CancelToken> cancel, OnProgress on_progress,
                         OnDone on_done) {
  (void)known;  // the store knows by recipe; a new job proves the right to it by its manifest
  auto job = [this, wanted, cancel, on_progress, on_done](CancelToken& pool_token) {
    pool_token.SetCallback([&cancel] { cancel->Cancel(); });
    const link::v1::ImageObservation result =
        RunImageJob(parts_, wanted, *cancel, [&](const link::v1::ImageObservation& row) {
          loop_.Post([on_progress, row] { on_progress(row); });
        });
    pool_token.ClearCallback();
    loop_.Post([this, on_done, result] {
      // Eviction is decided on this loop alone, so nothing comes between these two.
      if (result.status() == link::v1::ImageObservation::READY)
        parts_.images.Unpin(result.recipe_digest());
      on_done(result);
    });
  };
  const auto submitted = pool_.Submit(std::move(job));
  if (submitted.ok()) return;
  link::v1::ImageObservation refused;
  refused.set_image_id(wanted.image_id());
  refused.set_attempt(wanted.attempt());
  refused.set_status(link::v1::ImageObservation::FAILED);
  refused.set_error_code("INTERNAL");
  refused.set_error_message("the worker has too many images to make at once; it tries again");
  refused.set_retryable(true);
  loop_.Post([on_done, refused] { on_done(refused); });
}

void ImageRunner::LookUpTag(const link::v1::ImageAssignment& wanted, OnTag on_done) {
  const auto submitted = pool_.Submit([this, wanted, on_done](CancelToken& cancel) {
    const link::v1::TagCheck check = RunTagCheck(parts_, wanted, cancel);
    loop_.Post([on_done, check] { on_done(check); });
  });
  if (submitted.ok()) return;
  // No room now: it is as if the registry had not said, and the next look comes in its time.
  link::v1::TagCheck unknown;
  unknown.set_serial(wanted.tag_check());
  loop_.Post([on_done, unknown] { on_done(unknown); });
}

void ImageRunner::Remember(const link::v1::ImageObservation& ready) {
  // Losing this row costs a look at the manifest after a restart, no bake: log and go on.
  if (const absl::Status status = journal_.PutImage(ready); !status.ok())
    Log(Severity::kError, "journal.image_not_written", {{"error", std::string(status.message())}});
}

void ImageRunner::Forget(const std::string& image_id) {
  if (const absl::Status status = journal_.RemoveImage(image_id); !status.ok())
    Log(Severity::kError, "journal.image_not_removed", {{"error", std::string(status.message())}});
  CollectBlobs();
}

void ImageRunner::Evict(const std::string& recipe_digest) {
  if (!parts_.images.Find(recipe_digest)) return;
  // On the loop, so that nobody can come to want it between the decision and the rename.
  const auto retired = parts_.images.Retire(recipe_digest);
  Log(retired.ok() ? Severity::kInfo : Severity::kDebug, "image.evicted",
      {{"recipe", recipe_digest}, {"status", std::string(retired.status().message())}});
  if (!retired.ok()) return;  // in use: its bunker asks again when it ends
  on_evicted_(recipe_digest);
  const auto submitted = collect_pool_.Submit(
      [this, folder = *retired](CancelToken&) { parts_.images.DeleteRetired(folder); });
  if (!submitted.ok()) Log(Severity::kWarning, "image.delete_deferred", {{"folder", *retired}});
  CollectBlobs();
}

void ImageRunner::CollectBlobs() {
  const auto submitted = collect_pool_.Submit([this](CancelToken&) {
    parts_.blobs.DropPartials(kUnusedBlobLife);
    std::set<std::string> kept;
    for (const BakedImage& image : parts_.images.List())
      kept.insert(image.blobs.begin(), image.blobs.end());
    const absl::Time unused_since = absl::Now() - kUnusedBlobLife;
    for (const BlobInfo& blob : parts_.blobs.List()) {
      if (blob.pins > 0 || blob.last_used > unused_since || kept.count(blob.digest.str()) != 0)
        continue;
      // One that a pull has taken in this moment stays, and is looked at again another time.
      const absl::Status removed = parts_.blobs.Remove(blob.digest);
      Log(Severity::kInfo, "blob.collected",
          {{"digest", blob.digest.str()}, {"status", std::string(removed.message())}});
    }
  });
  // Not submitted: the next eviction or start comes round to it.
  if (!submitted.ok()) Log(Severity::kDebug, "blob.collect_deferred");
}

}  // namespace bunker::agent
