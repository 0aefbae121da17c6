// Internal to agent/pull: an image in a registry.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "agent/pull/image_source.h"
#include "agent/pull/pull_context.h"
#include "agent/pull/registry_client.h"

namespace bunker::agent {

class RegistrySource final : public ImageSource {
 public:
  RegistrySource(PullContext* context, RegistryEndpoint endpoint, oci::Reference reference,
                 oci::Digest pinned, std::string arch);

  // See RegistryClient::SetOwner.
  void SetOwner(std::string owner) { client_.SetOwner(std::move(owner)); }

  absl::StatusOr<ResolvedImage> Resolve(CancelToken& cancel) override;
  absl::StatusOr<oci::Digest> LookUpTag(CancelToken& cancel) override;
  std::string Origin() const override {
    return client_.endpoint().base_url + "/" + reference_.repository;
  }
  absl::StatusOr<std::vector<LayerFile>> Fetch(const ResolvedImage& image, oci::BlobCache& blobs,
                                               CancelToken& cancel,
                                               const PullProgress& progress) override;

 private:
  struct Group;
  void FetchSome(Group& group);
  absl::Status FetchOne(Group& group, size_t index);

  const oci::Reference reference_;
  const oci::Digest pinned_;
  const std::string arch_;
  const uint32_t parallel_;
  DocumentCache* const documents_;
  RegistryClient client_;
};

}  // namespace bunker::agent
