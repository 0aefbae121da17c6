#include "agent/pull/registry_source.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "agent/pull/progress_meter.h"
#include "agent/pull/resolve.h"
#include "common/base/mutex.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {
// What the blob store says knows the digest but not the image.
absl::Status Named(const absl::Status& status, const std::string& reference) {
  const bool named = std::string(status.message()).find(reference) != std::string::npos;
  return named || status.ok() ? status : Annotate(status, reference);
}
}  // namespace

RegistrySource::RegistrySource(PullContext* context, RegistryEndpoint endpoint,
                               oci::Reference reference, oci::Digest pinned, std::string arch)
    : reference_(std::move(reference)),
      pinned_(std::move(pinned)),
      arch_(std::move(arch)),
      parallel_(context->config.fetches_per_registry),
      documents_(&context->documents),
      client_(context->config, std::move(endpoint), reference_, &context->client,
              &context->limiter) {}

absl::StatusOr<ResolvedImage> RegistrySource::Resolve(CancelToken& cancel) {
  const StopFn stop = [&cancel] { return cancel.cancelled(); };
  const auto get = [&](const oci::Digest& digest) -> absl::StatusOr<Document> {
    ASSIGN_OR_RETURN(FetchedManifest manifest, client_.GetManifest(digest, stop));
    return Document{std::move(manifest.body), std::move(manifest.content_type),
                    std::move(manifest.digest)};
  };
  const std::string place = client_.endpoint().base_url + "/" + reference_.repository + "@";
  const DocumentReader reader = {
      .manifest = [&](const oci::Descriptor& entry) -> absl::StatusOr<Document> {
        ASSIGN_OR_RETURN(Document document, documents_->GetOrFetch(
                                                place + "manifest " + entry.digest.str(),
                                                [&] { return get(entry.digest); }, stop));
        if (document.body.size() == entry.size_bytes) return document;
        return ReasonError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                           reference_.ToString() + ": manifest " + entry.digest.str() + " has " +
                               std::to_string(document.body.size()) +
                               " bytes where its index "
                               "declares " +
                               std::to_string(entry.size_bytes) + ": push the image again");
      },
      .config = [&](const oci::Descriptor& config) -> absl::StatusOr<std::string> {
        const auto fetch = [&]() -> absl::StatusOr<Document> {
          ASSIGN_OR_RETURN(std::string body, client_.GetSmallBlob(config, stop));
          return Document{std::move(body), "", config.digest};
        };
        ASSIGN_OR_RETURN(Document document,
                         documents_->GetOrFetch(place + config.digest.str(), fetch, stop));
        if (document.body.size() == config.size_bytes) return std::move(document.body);
        return ReasonError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                           reference_.ToString() + ": config " + config.digest.str() + " has " +
                               std::to_string(document.body.size()) +
                               " bytes where its manifest "
                               "declares " +
                               std::to_string(config.size_bytes) + ": push the image again");
      },
  };
  ASSIGN_OR_RETURN(Document top, get(pinned_.empty() ? reference_.digest : pinned_));
  ASSIGN_OR_RETURN(ResolvedImage image,
                   ResolveDocument(std::move(top), arch_, pinned_, reference_.ToString(), reader));
  image.repository = reference_.Name();
  image.source = "registry";
  return image;
}

absl::StatusOr<oci::Digest> RegistrySource::LookUpTag(CancelToken& cancel) {
  return client_.LookUpTag([&cancel] { return cancel.cancelled(); });
}

// One Fetch(): its threads take layers one after another until none is left or one has failed.
struct RegistrySource::Group {
  const std::vector<ResolvedLayer>& layers;  // each digest once
  oci::BlobCache& blobs;
  const std::string origin;
  const StopFn stop;
  ProgressMeter meter;
  std::atomic<size_t> next{0};
  std::atomic<bool>& failed;
  Mutex mutex;
  absl::Status error ABSL_GUARDED_BY(mutex);
  std::vector<std::shared_ptr<const oci::Blob>> done ABSL_GUARDED_BY(mutex);
};

absl::Status RegistrySource::FetchOne(Group& group, size_t index) {
  const ResolvedLayer& layer = group.layers[index];
  const auto fetch = [&](oci::BlobWriter& writer) {
    return client_.GetBlob(layer.digest, layer.size_bytes, writer, group.stop,
                           [&](uint64_t bytes) { group.meter.Set(index, bytes); });
  };
  auto fetched =
      group.blobs.GetOrFetch(layer.digest, layer.size_bytes, group.origin, fetch, group.stop);
  if (!fetched.ok()) return Named(fetched.status(), reference_.ToString());
  std::shared_ptr<const oci::Blob> blob = *std::move(fetched);
  group.meter.Set(index, layer.size_bytes);
  MutexLock lock(group.mutex);
  group.done[index] = std::move(blob);
  return absl::OkStatus();
}

void RegistrySource::FetchSome(Group& group) {
  for (;;) {
    const size_t index = group.next.fetch_add(1);
    if (index >= group.layers.size() || group.failed.load()) return;
    const absl::Status status = FetchOne(group, index);
    if (status.ok()) continue;
    MutexLock lock(group.mutex);
    // The first failure stops the others, which then say CANCELLED: it is the one that counts.
    if (!group.failed.exchange(true)) group.error = status;
    return;
  }
}

absl::StatusOr<std::vector<LayerFile>> RegistrySource::Fetch(const ResolvedImage& image,
                                                             oci::BlobCache& blobs,
                                                             CancelToken& cancel,
                                                             const PullProgress& progress) {
  std::vector<ResolvedLayer> unique;
  uint64_t total = 0;
  // Top layer first: that is the order in which a bake that reads along wants them.
  for (auto it = image.layers.rbegin(); it != image.layers.rend(); ++it) {
    const ResolvedLayer& layer = *it;
    const bool known = std::any_of(unique.begin(), unique.end(), [&](const ResolvedLayer& other) {
      return other.digest == layer.digest;
    });
    if (known) continue;
    unique.push_back(layer);
    total += layer.size_bytes;
  }
  std::atomic<bool> failed{false};
  Group group{.layers = unique,
              .blobs = blobs,
              .origin = Origin(),
              .stop = [&] { return cancel.cancelled() || failed.load(); },
              .meter = ProgressMeter(unique.size(), total, progress),
              .failed = failed,
              .mutex = {},
              .error = {},
              .done = {}};
  std::vector<std::shared_ptr<const oci::Blob>> done;
  {
    MutexLock lock(group.mutex);
    group.done.resize(unique.size());
  }
  {
    std::vector<std::jthread> threads;
    for (size_t i = 1; i < std::min<size_t>(parallel_, unique.size()); ++i)
      threads.emplace_back([&] { FetchSome(group); });
    FetchSome(group);
  }
  MutexLock lock(group.mutex);
  RETURN_IF_ERROR(group.error);
  std::vector<LayerFile> files;
  for (const ResolvedLayer& layer : image.layers) {
    const auto blob =
        std::find_if(group.done.begin(), group.done.end(),
                     [&](const auto& candidate) { return candidate->digest() == layer.digest; });
    files.push_back({.path = (*blob)->path(),
                     .digest = layer.digest,
                     .size_bytes = layer.size_bytes,
                     .compression = layer.compression,
                     .diff_id = layer.diff_id,
                     .hold = *blob});
  }
  return files;
}

}  // namespace bunker::agent
