// The connection to the controller: TLS, or plain text where that can't leave the machine.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/grpcpp.h"

namespace bunker::agent {

struct LinkEndpoint {
  std::string address;   // host:port
  bool tls = false;
  std::string ca_file;   // PEM; empty: the system's
};

// A channel that dials once asked. Plain text is refused for anything but a loopback address: the
// credential would be readable on the way. Blocking: reads the CA file. Thread-safe.
absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const LinkEndpoint& endpoint);

// True for 127.0.0.0/8, [::1] and localhost, with or without a port.
bool IsLoopback(const std::string& address);

// The controller's answer as a Status of ours, with the reason that it sent, if any.
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace bunker::agent
