// The public services over gRPC, built from their descriptors: every RPC is decoded, handed to the
// same dispatcher that REST uses, and answered with a canonical code, ErrorInfo and details.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "controller/api/dispatcher.h"
#include "google/protobuf/descriptor.h"
#include "grpcpp/grpcpp.h"

namespace bunker::controller {

// Must outlive the server's last call.
class GrpcSurface {
 public:
  // `core` and `dispatcher` must outlive it. A call over a unix socket is the operator's and needs
  // no key: only a socket that nobody else can reach may be given these services.
  GrpcSurface(Core& core, Dispatcher& dispatcher,
              const std::vector<const google::protobuf::ServiceDescriptor*>& services);
  ~GrpcSurface();

  // Adds all services to the server in the making.
  void Register(grpc::ServerBuilder& builder);

 private:
  class DescribedService;
  std::vector<std::unique_ptr<DescribedService>> services_;
};

// What the peer is told of an error: code, message and google.rpc.Status with ErrorInfo, and
// BadRequest, RetryInfo or PlacementFailure where there is one.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace bunker::controller
