// The whole controller, wired: store, engine, loop, link, REST, gRPC, admin socket.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "controller/config.h"

namespace bunker::controller {

class Server {
 public:
  // Opens the store (which `init` made), reads it and listens. Blocking. Call BlockSignals() in
  // main first, before any thread is there.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ControllerConfig& config);
  ~Server();

  // Serves on the calling thread until SIGTERM or SIGINT, then answers what runs and returns: 0,
  // or 1 where a listener died.
  int Run();

  // As bound, where the configuration said 0.
  uint16_t rest_port() const;
  uint16_t grpc_port() const;

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// SIGTERM and SIGINT wait for Run(); SIGPIPE is an error code of its call.
void BlockSignals();

}  // namespace bunker::controller
