#include "agent/link/login_client.h"

#include <chrono>

#include "bunker/link/v1/agent_link.grpc.pb.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {

absl::StatusOr<link::v1::RegistryLogin> FetchRegistryLogin(const LinkEndpoint& endpoint,
                                                           const Identity& identity,
                                                           const std::string& image_id,
                                                           absl::Duration timeout,
                                                           CancelToken& cancel) {
  ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, OpenChannel(endpoint));
  const auto stub = link::v1::AgentLink::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
  // The controller may be on its way up: it is waited for, within the time-out.
  context.set_wait_for_ready(true);
  context.AddMetadata("authorization", "Bearer " + identity.credential);
  link::v1::RegistryLoginRequest request;
  request.set_image_id(image_id);
  link::v1::RegistryLogin login;
  cancel.SetCallback([&context] { context.TryCancel(); });
  const grpc::Status status = stub->GetRegistryLogin(&context, request, &login);
  cancel.ClearCallback();
  if (status.ok()) return login;
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED ||
      status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    return absl::UnavailableError(
        "the controller could not be asked for the image's registry credential; it is tried "
        "again");
  }
  if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
    return absl::FailedPreconditionError(
        "the controller gives out no registry credentials: bring it to this agent's version");
  }
  return FromGrpc(status);
}

}  // namespace bunker::agent
