// One repository at one registry, spoken to by the Docker Registry v2 / OCI distribution protocol.
//
// Every request is bounded in size, time and tries; what fails for a moment is tried again with
// back-off, what was cut is continued. Manifests are verified here, blobs where they are kept.
//
// Thread-safe. Blocking.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/pull/backoff.h"
#include "agent/pull/fetch_limiter.h"
#include "agent/pull/host_table.h"
#include "agent/pull/registry_auth.h"
#include "common/http/http_client.h"
#include "common/oci/blob_cache.h"
#include "common/oci/manifest.h"
#include "common/oci/reference.h"

namespace bunker::agent {

struct FetchedManifest {
  std::string body;
  std::string content_type;
  oci::Digest digest;  // of the body, computed
};

class RegistryClient {
 public:
  // `client` and `limiter` must outlive it.
  RegistryClient(const PullConfig& config, RegistryEndpoint endpoint, oci::Reference reference,
                 http::Client* client, FetchLimiter* limiter);

  // By tag or by `digest` where it is not empty, which the answer must then have.
  absl::StatusOr<FetchedManifest> GetManifest(const oci::Digest& digest, const StopFn& stop);

  // The digest that the tag has now, by HEAD; empty where the registry does not say.
  absl::StatusOr<oci::Digest> LookUpTag(const StopFn& stop);

  // A blob of at most 4 MiB, verified: the image config.
  absl::StatusOr<std::string> GetSmallBlob(const oci::Descriptor& blob, const StopFn& stop);

  // From the writer's offset to the end. `on_bytes` runs after each piece with the new offset.
  // The digest is the writer's owner's to check.
  absl::Status GetBlob(const oci::Digest& digest, uint64_t size_bytes, oci::BlobWriter& writer,
                       const StopFn& stop, const std::function<void(uint64_t)>& on_bytes);

  const RegistryEndpoint& endpoint() const { return endpoint_; }

  // Whose fetches these are, for taking turns with others'. Before the first request.
  void SetOwner(std::string owner) { owner_ = std::move(owner); }

 private:
  struct BlobAttempt;
  // One request with its sign-in; at most three answers of 401.
  absl::StatusOr<http::Response> Send(http::Request request, const StopFn& stop,
                                      std::string* retry_after);
  absl::StatusOr<http::Response> SendWithRetries(const http::Request& request,
                                                 const std::string& subject, const StopFn& stop);
  static absl::Status CheckSmallHead(const http::ResponseHead& head, const std::string& subject);
  absl::Status TryBlob(BlobAttempt& attempt);
  absl::Status CheckBlobHead(BlobAttempt& attempt, const http::ResponseHead& head);
  absl::Duration DelayAfter(const std::string& retry_after, int failed_tries) const;
  // What one request was told holds for all; to be said while its slot is held.
  void LeaveAlone(const std::string& retry_after);
  absl::Status ErrorOf(const http::Response& response, const std::string& subject) const;
  http::Request NewRequest(const std::string& path) const;
  std::string Subject() const;

  const PullConfig config_;
  const RegistryEndpoint endpoint_;
  const oci::Reference reference_;
  http::Client* const client_;
  FetchLimiter* const limiter_;
  RegistryAuth auth_;
  std::string owner_;  // constant after SetOwner
};

}  // namespace bunker::agent
