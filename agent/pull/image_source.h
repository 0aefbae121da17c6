// Where an image comes from: a registry, or a file under the operator's folder.
//
// Thread-safe: one ImageSource belongs to one thread at a time; the ImagePuller serves any number
// of threads and lives as long as the agent, because it owns what pulls share: connections, tokens
// and the limits on parallel fetches.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/pull/pull_types.h"
#include "common/base/cancel.h"
#include "common/oci/blob_cache.h"
#include "common/oci/digest.h"

namespace bunker::agent {

// Errors of both calls carry the cache row's code: REGISTRY_AUTH_FAILED, REGISTRY_RATE_LIMITED,
// REGISTRY_UNREACHABLE, IMAGE_NOT_FOUND, ARCH_UNAVAILABLE, DIGEST_MISMATCH, LAYER_CORRUPT,
// LAYER_UNSUPPORTED, DISK_FULL, SOURCE_NOT_READABLE, CANCELLED. Whether another try may help is in
// IsRetryablePullError(). Blocking.
class ImageSource {
 public:
  virtual ~ImageSource() = default;

  // Manifest and config: what the image is, without its layers.
  virtual absl::StatusOr<ResolvedImage> Resolve(CancelToken& cancel) = 0;

  // What the reference's tag names now, asked for without its content (HEAD): the digest of the
  // manifest or index, or an empty one where the registry does not say. kUnimplemented for what
  // comes from a file.
  virtual absl::StatusOr<oci::Digest> LookUpTag(CancelToken& cancel) {
    (void)cancel;
    return absl::UnimplementedError("a file has no tag");
  }

  // The origin that Fetch() names to the blob cache; "" where nothing comes over a network.
  virtual std::string Origin() const { return ""; }

  // The layers of what Resolve() returned, as files in their order; digests of what came over a
  // network are verified, those of local files are left to the bake.
  virtual absl::StatusOr<std::vector<LayerFile>> Fetch(const ResolvedImage& image,
                                                       oci::BlobCache& blobs, CancelToken& cancel,
                                                       const PullProgress& progress) = 0;
};

struct PullContext;

class ImagePuller {
 public:
  // kInvalidArgument where the configuration holds a host or a mirror that is none.
  static absl::StatusOr<std::unique_ptr<ImagePuller>> Create(PullConfig config);
  ~ImagePuller();

  // `pinned` is the platform manifest's digest that the controller has committed ("" where none
  // is yet): the source answers with that content or fails with DIGEST_MISMATCH. `arch` is X86_64
  // or AARCH64. Touches neither network nor disk. The source must not outlive the puller.
  absl::StatusOr<std::unique_ptr<ImageSource>> OpenSource(const SourceSpec& spec,
                                                          const std::string& pinned,
                                                          const std::string& arch);

 private:
  explicit ImagePuller(std::unique_ptr<PullContext> context);
  std::unique_ptr<PullContext> context_;
};

// True for what time may heal: the registry is down or busy, the disk is full. False for what only
// a person can change.
bool IsRetryablePullError(const absl::Status& status);

}  // namespace bunker::agent
