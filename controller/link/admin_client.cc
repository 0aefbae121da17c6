#include "controller/link/admin_client.h"

#include <chrono>

#include "bunker/v1/admin.grpc.pb.h"
#include "common/base/reason.h"
#include "controller/link/grpc_status.h"
#include "grpcpp/grpcpp.h"

namespace bunker::controller {

absl::StatusOr<JoinTokenGrant> CreateJoinToken(const std::string& socket_path,
                                               const std::string& worker_name, uint32_t ttl_s,
                                               const std::map<std::string, std::string>& labels) {
  const auto channel =
      grpc::CreateChannel("unix:" + socket_path, grpc::InsecureChannelCredentials());
  const auto stub = v1::Admin::NewStub(channel);
  v1::CreateJoinTokenRequest request;
  request.set_worker_name(worker_name);
  request.set_ttl_s(ttl_s);
  request.mutable_labels()->insert(labels.begin(), labels.end());
  v1::CreateJoinTokenResponse response;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  const grpc::Status status = stub->CreateJoinToken(&context, request, &response);
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                       "no controller answers on " + socket_path +
                           "; run this as root on the controller's host while it runs, and check "
                           "admin_socket in its configuration (" + status.error_message() + ")");
  }
  if (!status.ok()) return FromLinkStatus(status);
  return JoinTokenGrant{response.token(), response.worker_name(),
                        absl::FromUnixMillis(response.expires_at_unix_ms())};
}

}  // namespace bunker::controller
