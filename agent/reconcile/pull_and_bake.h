// Pulls an image's layers and bakes them at the same time: the bake reads each blob as it comes,
// top layer first, so that the image is ready soon after its last byte.
//
// Blocking; thread-safe: a free function over thread-safe parts.
#pragma once

#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/bake/bake_types.h"
#include "agent/cache/blob_store.h"
#include "agent/pull/image_source.h"
#include "common/base/cancel.h"

namespace bunker::agent {

// What is told meanwhile; from several threads, one at a time.
struct PullAndBakeProgress {
  std::function<void(uint64_t done, uint64_t total)> pulled;
  std::function<void()> pull_ended;  // once, where the pull succeeds; only then comes `baked`
  std::function<void(uint64_t done, uint64_t total)> baked;
};

// `options` has all but its layers and feed. Whatever the pull finds wrong is the answer, for it
// knows the reason (a digest, the registry); a bake that fails ends the pull. Errors: those of
// ImageSource::Fetch() and Bake().
absl::StatusOr<BakeSummary> PullAndBake(ImageSource& source, const ResolvedImage& image,
                                        BlobStore& blobs, BakeOptions options, CancelToken& cancel,
                                        const PullAndBakeProgress& progress);

}  // namespace bunker::agent
