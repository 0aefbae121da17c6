#include "agent/reconcile/pull_and_bake.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "agent/bake/bake_supervisor.h"
#include "agent/bake/layer_feed.h"
#include "common/base/hex.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/base/reason.h"
#include "common/base/sha256.h"
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

bool HasDigest(const LayerFile& file) {
  std::ifstream in(file.path, std::ios::binary);
  std::string buffer(1 << 20, '\0');
  Sha256 hash;
  while (in) {
    in.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    hash.Update(buffer.data(), static_cast<size_t>(in.gcount()));
  }
  return HexEncode(hash.Finish()) == file.digest.hex();
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
      rebake_cancel_.Cancel();
    });
    std::thread pull([this] { Pull(); });
    absl::StatusOr<BakeSummary> baked = BakeNow(options_, bake_cancel_);
    const std::string reason = ReasonOf(baked.status());
    // A wrong digest is the pull's to judge: it sees the same bytes, and knows where they are from.
    if (!baked.ok() && reason != "DIGEST_MISMATCH" && !Stale()) pull_cancel_.Cancel();
    pull.join();
    // What was made of bytes that are not the verified blobs' is void, be it an image or an error.
    if (pulled_.ok() && (Stale() || reason == "DIGEST_MISMATCH"))
      baked = BakeWholeBlobs(baked.ok());
    cancel.ClearCallback();
    followers_.clear();
    RETURN_IF_ERROR(cancel.Check());
    // Where the bake was ended for the pull's failure, that failure is the answer, and the other
    // way round.
    const std::string pull_reason = ReasonOf(pulled_.status());
    if (!pulled_.ok() &&
        (baked.ok() || ReasonOf(baked.status()) == "CANCELLED" || pull_reason != "CANCELLED")) {
      return pulled_.status();
    }
    if (!baked.ok()) DropWhatIsNotWanted(baked.status());
    return baked;
  }

 private:
  absl::Status Follow() {
    ASSIGN_OR_RETURN(feed_, LayerFeed::Create());
    options_.feed = feed_.get();
    for (size_t i = 0; i < image_.layers.size(); ++i) {
      const ResolvedLayer& layer = image_.layers[i];
      const auto on_bytes = [this, i](uint64_t bytes) { feed_->Announce(i, bytes); };
      ASSIGN_OR_RETURN(auto follower, blobs_.Follow(layer.digest, source_.Origin(), on_bytes));
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
    {
      MutexLock lock(mutex_);
      pull_ended_ = true;
      if (progress_.pull_ended) progress_.pull_ended();
    }
    if (Stale()) {
      bake_cancel_.Cancel();
      return;
    }
    for (size_t i = 0; i < image_.layers.size(); ++i)
      feed_->Announce(i, image_.layers[i].size_bytes);
    feed_->SetComplete();
  }

  bool Stale() const {
    return std::any_of(followers_.begin(), followers_.end(),
                       [](const auto& follower) { return follower->stale(); });
  }

  absl::StatusOr<BakeSummary> BakeNow(const BakeOptions& options, CancelToken& cancel) {
    return Bake(options, cancel, [this](const BakeProgress& bake) {
      MutexLock lock(mutex_);
      if (pull_ended_ && progress_.baked) progress_.baked(bake.bytes_done, bake.bytes_total);
    });
  }

  absl::StatusOr<BakeSummary> BakeWholeBlobs(bool made) {
    Log(Severity::kInfo, "image.baked_again", {{"why", "what was read along is not what came"}});
    if (made) {
      ::unlink(options_.out_path.c_str());
      if (!options_.tree_path.empty()) ::unlink(options_.tree_path.c_str());
    }
    options_.feed = nullptr;
    for (size_t i = 0; i < options_.layers.size(); ++i) {
      options_.layers[i].fd = -1;
      options_.layers[i].path = (*pulled_)[i].path;
    }
    absl::StatusOr<BakeSummary> baked = BakeNow(options_, rebake_cancel_);
    if (ReasonOf(baked.status()) == "DIGEST_MISMATCH") DiscardDamaged();
    return baked;
  }

  // A blob was verified when it came; where it no longer hashes to its name, the disk has changed
  // it, and the next attempt fetches it anew.
  void DiscardDamaged() {
    for (const LayerFile& file : *pulled_) {
      if (HasDigest(file)) continue;
      const absl::Status dropped = blobs_.Discard(file.digest);
      Log(Severity::kWarning, "blob.damaged",
          {{"digest", file.digest.str()}, {"status", std::string(dropped.message())}});
    }
  }

  // Nobody asks again for the rest of an image that can't be baked.
  void DropWhatIsNotWanted(const absl::Status& status) {
    const std::string reason = ReasonOf(status);
    if (reason != "LAYER_UNSUPPORTED" && reason != "LAYER_CORRUPT") return;
    for (const ResolvedLayer& layer : image_.layers) blobs_.DropPartial(layer.digest);
  }

  ImageSource& source_;
  const ResolvedImage& image_;
  BlobStore& blobs_;
  BakeOptions options_;
  const PullAndBakeProgress& progress_;
  CancelToken pull_cancel_;
  CancelToken bake_cancel_;
  CancelToken rebake_cancel_;
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
