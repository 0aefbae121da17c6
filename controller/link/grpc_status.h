// Errors on the link and the admin socket: a canonical code, a message and the reason as
// google.rpc.ErrorInfo.
//
// Thread-safe: free functions without state.
#pragma once

#include "absl/status/status.h"
#include "grpcpp/grpcpp.h"

namespace bunker::controller {

// What the peer is told.
grpc::Status ToLinkStatus(const absl::Status& status);

// The same way back, with the reason if one was sent.
absl::Status FromLinkStatus(const grpc::Status& status);

}  // namespace bunker::controller
