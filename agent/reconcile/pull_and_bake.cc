#include "agent/reconcile/pull_and_bake.h"

#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "agent/bake/bake_supervisor.h"
#include "agent/bake/layer_feed.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

Compression ToBake(oci::Compression compression) {
  switch (compression) {
    case oci::Compression::kNone:
      return Compression::kNone;
    case oci::Compression::kGzip:
      return Compression::kGzip;
    case oci::Compression::kZstd:
      return Compression::kZstd;
  }
  return Compression::kNone;
}

class Job {
 public:
  Job(ImageSource& source, const ResolvedImage& image, BlobStore& blobs, BakeOptions options,
      const PullAndBakeProgress& progress)
      : source_(source),
        image_(image),
        blobs_(blobs),
        options_(std::move(options)),
        progress_(progress) {}

  absl::StatusOr<BakeSummary> Run(CancelToken& cancel) {
    RETURN_IF_ERROR(Follow());
    cancel.SetCallback([this] {
      pull_cancel_.Cancel();
      bake_cancel_.Cancel();
    });
    std::thread pull([this] { Pull(); });
    absl::StatusOr<BakeSummary> baked = BakeNow(options_);
    const std::string reason = ReasonOf(baked.status());
    // A wrong digest is the pull's to judge: it sees the same bytes, and knows where they are from.
    if (!baked.ok() && reason != "DIGEST_MISMATCH") pull_cancel_.Cancel();
    pull.join();
    if (pulled_.ok() && reason == "DIGEST_MISMATCH") baked = BakeWholeBlobs();
    cancel.ClearCallback();
    RETURN_IF_ERROR(cancel.Check());
    // Where the bake was ended for the pull's failure, that failure is the answer, and the other
    // way round.
    if (!pulled_.ok() && (baked.ok() || ReasonOf(baked.status()) == "CANCELLED" ||
                          ReasonOf(pulled_.status()) != "CANCELLED")) {
      return pulled_.status();
    }
    return baked;
  }

 private:
  absl::Status Follow() {
    ASSIGN_OR_RETURN(feed_, LayerFeed::Create());
    options_.feed = feed_.get();
    for (size_t i = 0; i < image_.layers.size(); ++i) {
      const ResolvedLayer& layer = image_.layers[i];
      ASSIGN_OR_RETURN(auto follower, blobs_.Follow(layer.digest, [this, i](uint64_t bytes) {
        feed_->Announce(i, bytes);
      }));
      options_.layers.push_back({.path = "",
                                 .compression = ToBake(layer.compression),
                                 .blob_digest = layer.digest.str(),
                                 .diff_id = layer.diff_id.str(),
                                 .size_bytes = layer.size_bytes,
                                 .fd = follower->fd()});
      followers_.push_back(std::move(follower));
    }
    return absl::OkStatus();
  }

  void Pull() {
    pulled_ = source_.Fetch(image_, blobs_, pull_cancel_, [this](uint64_t done, uint64_t total) {
      MutexLock lock(mutex_);
      if (progress_.pulled) progress_.pulled(done, total);
    });
    if (!pulled_.ok()) {
      bake_cancel_.Cancel();
      return;
    }
    // A blob that another job fetched, or that was there under a new file, is told of here.
    for (size_t i = 0; i < image_.layers.size(); ++i)
      feed_->Announce(i, image_.layers[i].size_bytes);
    feed_->SetComplete();
    MutexLock lock(mutex_);
    pull_ended_ = true;
    if (progress_.pull_ended) progress_.pull_ended();
  }

  absl::StatusOr<BakeSummary> BakeNow(const BakeOptions& options) {
    return Bake(options, bake_cancel_, [this](const BakeProgress& bake) {
      MutexLock lock(mutex_);
      if (pull_ended_ && progress_.baked) progress_.baked(bake.bytes_done, bake.bytes_total);
    });
  }

  // What was read along was taken back on the way (a resumed download that had to start over); the
  // blobs are whole and verified now.
  absl::StatusOr<BakeSummary> BakeWholeBlobs() {
    Log(Severity::kInfo, "image.baked_again", {{"why", "a blob was fetched anew meanwhile"}});
    options_.feed = nullptr;
    for (size_t i = 0; i < options_.layers.size(); ++i) {
      options_.layers[i].fd = -1;
      options_.layers[i].path = (*pulled_)[i].path;
    }
    return BakeNow(options_);
  }

  ImageSource& source_;
  const ResolvedImage& image_;
  BlobStore& blobs_;
  BakeOptions options_;
  const PullAndBakeProgress& progress_;
  CancelToken pull_cancel_;
  CancelToken bake_cancel_;
  std::unique_ptr<LayerFeed> feed_;  // outlives the followers, which announce to it
  std::vector<std::unique_ptr<BlobStore::Follower>> followers_;
  // Written by the pull's thread, read after its join.
  absl::StatusOr<std::vector<LayerFile>> pulled_ = absl::UnknownError("not pulled");

  Mutex mutex_;
  bool pull_ended_ ABSL_GUARDED_BY(mutex_) = false;
};

// Files of an operator's folder are there already.
absl::StatusOr<BakeSummary> BakeFiles(ImageSource& source, const ResolvedImage& image,
                                      BlobStore& blobs, BakeOptions options, CancelToken& cancel,
                                      const PullAndBakeProgress& progress) {
  ASSIGN_OR_RETURN(const std::vector<LayerFile> files,
                   source.Fetch(image, blobs, cancel, progress.pulled));
  if (progress.pull_ended) progress.pull_ended();
  for (const LayerFile& file : files) {
    options.layers.push_back({.path = file.path,
                              .compression = ToBake(file.compression),
                              .blob_digest = file.digest.str(),
                              .diff_id = file.diff_id.str(),
                              .size_bytes = file.size_bytes});
  }
  return Bake(options, cancel, [&](const BakeProgress& bake) {
    if (progress.baked) progress.baked(bake.bytes_done, bake.bytes_total);
  });
}

}  // namespace

absl::StatusOr<BakeSummary> PullAndBake(ImageSource& source, const ResolvedImage& image,
                                        BlobStore& blobs, BakeOptions options, CancelToken& cancel,
                                        const PullAndBakeProgress& progress) {
  if (image.source != "registry")
    return BakeFiles(source, image, blobs, std::move(options), cancel, progress);
  return Job(source, image, blobs, std::move(options), progress).Run(cancel);
}

}  // namespace bunker::agent
