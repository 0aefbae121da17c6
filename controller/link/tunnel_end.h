// The controller's end of one tunnel's stream, from its opening until a caller is found for it;
// then it passes everything on.
//
// Thread-safe.
#pragma once

#include <memory>
#include <string>

#include "common/base/mutex.h"
#include "controller/engine/core.h"
#include "controller/link/tunnel_broker.h"
#include "controller/link/tunnel_listener.h"

namespace bunker::controller {

class TunnelEnd : public std::enable_shared_from_this<TunnelEnd> {
 public:
  // Both must outlive the stream.
  TunnelEnd(Core& core, TunnelBroker& tunnels) : core_(core), tunnels_(tunnels) {}

  // A stream came with that credential; what to return to gRPC is stream->reactor().
  std::shared_ptr<TunnelStream> Open(grpc::CallbackServerContext* context,
                                     std::string credential_sha256);

 private:
  void OnFrame(link::v1::AgentTunnelFrame frame);
  void OnHello(const std::string& tunnel_id);
  void OnDone();
  std::shared_ptr<TunnelListener> listener();

  Core& core_;
  TunnelBroker& tunnels_;
  std::weak_ptr<TunnelStream> stream_;  // it owns this, by its events

  // The loop's.
  std::string worker_id_;

  Mutex mutex_;
  std::shared_ptr<TunnelListener> listener_ ABSL_GUARDED_BY(mutex_);
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace bunker::controller
