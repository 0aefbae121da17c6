// The AgentLink service: takes calls on gRPC's threads and posts them to the core. Nothing here
// blocks or reads the store.
#pragma once

#include <atomic>

#include "bunker/link/v1/agent_link.grpc.pb.h"
#include "common/seal/key_ring.h"
#include "controller/engine/core.h"
#include "controller/link/session_registry.h"
#include "controller/link/tunnel_broker.h"

namespace bunker::controller {

class AgentService final : public link::v1::AgentLink::CallbackService {
 public:
  // All must outlive the service and the server's last call.
  // Without `keys` (null) no login can be opened.
  AgentService(Core& core, SessionRegistry& sessions, TunnelBroker& tunnels, const KeyRing* keys)
      : core_(core), sessions_(sessions), tunnels_(tunnels), keys_(keys) {}

  grpc::ServerUnaryReactor* Join(grpc::CallbackServerContext* context,
                                 const link::v1::JoinRequest* request,
                                 link::v1::JoinResponse* response) override;
  grpc::ServerBidiReactor<link::v1::AgentFrame, link::v1::ControllerFrame>* Connect(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* GetRegistryLogin(grpc::CallbackServerContext* context,
                                             const link::v1::RegistryLoginRequest* request,
                                             link::v1::RegistryLogin* response) override;
  grpc::ServerBidiReactor<link::v1::AgentTunnelFrame, link::v1::ControllerTunnelFrame>* Tunnel(
      grpc::CallbackServerContext* context) override;

 private:
  Core& core_;
  SessionRegistry& sessions_;
  TunnelBroker& tunnels_;
  const KeyRing* const keys_;
  std::atomic<uint64_t> next_session_{1};
};

}  // namespace bunker::controller
