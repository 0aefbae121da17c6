// What every gRPC server of the controller is built with.
//
// Thread-safe: free functions without state.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grpcpp/grpcpp.h"

namespace bunker::controller {

// Bounds and liveness: one server a port (a second one fails to start), messages of 4 MiB at
// most, metadata of 16 KiB, peers that vanished noticed within 20 s.
void ApplyServerDefaults(grpc::ServerBuilder& builder);

// TLS with a certificate chain and its key, both PEM. Blocking: reads the files.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> LoadServerCredentials(
    const std::string& cert_file, const std::string& key_file);

// The packaged Abseil looks for cycles among gRPC's locks whenever one is taken, at the cost of a
// tenth of the link's time: not here. Once, before the first server.
void TuneGrpc();

// Raises the soft limit of open files to the hard one and returns it: the packaged gRPC never
// accepts again once it has run out of them, so the listener must not get there. Logs a warning
// below 65,536.
uint64_t RaiseFileLimit();

}  // namespace bunker::controller
