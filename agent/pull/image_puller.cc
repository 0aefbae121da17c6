#include "agent/pull/image_source.h"

#include <utility>

#include "agent/pull/local_source.h"
#include "agent/pull/pull_context.h"
#include "agent/pull/registry_source.h"
#include "common/base/converters.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/oci/platform.h"

namespace bunker::agent {

absl::StatusOr<std::unique_ptr<ImagePuller>> ImagePuller::Create(PullConfig config) {
  ASSIGN_OR_RETURN(HostTable hosts, HostTable::Create(config));
  if (config.fetches_per_registry == 0 || config.fetches_in_all == 0 || config.max_tries == 0)
    return absl::InvalidArgumentError("fetch limits and tries must be at least 1");
  auto context = std::make_unique<PullContext>(std::move(config), std::move(hosts));
  return std::unique_ptr<ImagePuller>(new ImagePuller(std::move(context)));
}

ImagePuller::ImagePuller(std::unique_ptr<PullContext> context) : context_(std::move(context)) {}
ImagePuller::~ImagePuller() = default;

absl::StatusOr<std::unique_ptr<ImageSource>> ImagePuller::OpenSource(const SourceSpec& spec,
                                                                     const std::string& pinned,
                                                                     const std::string& arch) {
  RETURN_IF_ERROR(oci::GoArchitecture(arch).status());
  oci::Digest pin;
  if (!pinned.empty()) {
    ASSIGN_OR_RETURN(pin, oci::Digest::Parse(pinned));
  }
  if (spec.oci_ref.empty() == spec.tar_path.empty())
    return absl::InvalidArgumentError("a source is either an image reference or a tar path");
  if (!spec.tar_path.empty()) return OpenLocalSource(context_->config, spec, std::move(pin), arch);
  auto reference = oci::ParseReference(spec.oci_ref);
  if (!reference.ok()) return WithReason(reference.status(), "IMAGE_NOT_FOUND");
  ASSIGN_OR_RETURN(RegistryEndpoint endpoint,
                   spec.login ? context_->hosts.EndpointOf(*reference, *spec.login)
                              : context_->hosts.EndpointOf(*reference));
  auto source = std::make_unique<RegistrySource>(context_.get(), std::move(endpoint),
                                                 *std::move(reference), std::move(pin), arch);
  source->SetOwner(spec.scope + "/" + spec.tenant_id);
  return source;
}

}  // namespace bunker::agent
