// The controller's end of the link as one piece: what the daemon's wiring creates, registers with
// its gRPC server and shuts down.
//
//   LinkServer link(core, {});            // on the loop, or before it runs
//   link.Register(builder);               // AgentLink, on the one gRPC port
//   …
//   link.tunnels().Exec(spec, done);      // on the loop
//   …
//   on the loop: link.CloseAll("…");      // then, off the loop: server->Shutdown(deadline),
//                                         // then both ~LinkServer and ~Core, in one task of
//                                         // the loop or after its end
#pragma once

#include <memory>
#include <string>

#include "controller/engine/core.h"
#include "controller/link/agent_service.h"
#include "controller/link/session_registry.h"
#include "controller/link/tunnel_broker.h"
#include "grpcpp/grpcpp.h"

namespace bunker::controller {

class LinkServer {
 public:
  struct Options {
    SessionRegistry::Options sessions;
    TunnelBroker::Options tunnels;
    const KeyRing* keys = nullptr;  // opens what agents need for pulls; must outlive the server
  };

  // `core` must outlive it, and it the server's last call and the core's last event.
  LinkServer(Core& core, Options options);

  // Adds the service to the server in the making.
  void Register(grpc::ServerBuilder& builder) { builder.RegisterService(&service_); }

  // On the loop only.
  TunnelBroker& tunnels() { return tunnels_; }
  SessionRegistry& sessions() { return sessions_; }
  void CloseAll(const std::string& reason) {
    tunnels_.CloseAll();
    sessions_.CloseAll(reason);
  }

 private:
  TunnelBroker tunnels_;
  SessionRegistry sessions_;
  AgentService service_;
};

}  // namespace bunker::controller
