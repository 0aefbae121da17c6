// Makes one image be on this worker: resolve → pull → bake → verify → publish.
//
// Blocking; runs on a pool thread. Thread-safe: a free function over thread-safe parts.
#pragma once

#include <functional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/bake/bake_types.h"
#include "agent/cache/blob_store.h"
#include "agent/cache/image_store.h"
#include "agent/pull/image_source.h"
#include "bunker/link/v1/agent_link.pb.h"
#include "common/base/cancel.h"

namespace bunker::agent {

// Where an image's own registry login comes from. Thread-safe; may block as long as a call over the
// network takes.
class LoginSource {
 public:
  virtual ~LoginSource() = default;
  // kUnavailable where the controller can't be reached: worth another try.
  virtual absl::StatusOr<RegistryLogin> LoginOf(const std::string& image_id,
                                                CancelToken& cancel) = 0;
};

// What a job works with. All must outlive it.
struct ImageJobParts {
  ImagePuller& puller;
  BlobStore& blobs;
  ImageStore& images;
  uid_t bake_uid = 64010;
  BakeLimits bake_limits;
  LoginSource* logins = nullptr;  // null: images that need one fail
};

// Returns the row's end: READY, or FAILED with code, message and whether another try may help.
// A READY image is pinned once: unpin it when the row stands in the table that guards it.
// `report` gets the row as it is under way, on this or a pull thread, at most about ten times a
// second.
link::v1::ImageObservation RunImageJob(
    const ImageJobParts& parts, const link::v1::ImageAssignment& wanted, CancelToken& cancel,
    const std::function<void(const link::v1::ImageObservation&)>& report);

// What the tag of an image that is there names now; an empty digest where that can't be told, which
// is logged. Blocking.
link::v1::TagCheck RunTagCheck(const ImageJobParts& parts, const link::v1::ImageAssignment& wanted,
                               CancelToken& cancel);

// Whether time may heal it. The one place that decides between temporary and permanent.
bool IsRetryable(const absl::Status& status);

}  // namespace bunker::agent
