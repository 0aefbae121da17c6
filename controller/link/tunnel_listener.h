// What a tunnel between a caller and a worker looks like from the caller's side. Exec is the first
// use; others (a terminal, a file) listen in the same way.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "bunker/link/v1/agent_link.pb.h"
#include "controller/link/server_stream.h"

namespace bunker::controller {

using TunnelStream = ServerStream<link::v1::AgentTunnelFrame, link::v1::ControllerTunnelFrame>;

// Called on gRPC's threads, or on the core's loop: nothing here may block. OnFrame() calls don't
// overlap each other.
class TunnelListener {
 public:
  virtual ~TunnelListener() = default;
  // The agent is there. At most once. The listener writes to `stream`, asks for each frame with
  // ReadNext(), and ends it with Finish() or Abort().
  virtual void OnOpen(std::shared_ptr<TunnelStream> stream) = 0;
  virtual void OnFrame(link::v1::AgentTunnelFrame frame) = 0;
  // A write left the queue.
  virtual void OnWritten() = 0;
  // Last, exactly once: the stream ended (OK: the agent closed it), or it never came.
  virtual void OnClosed(const absl::Status& why) = 0;
};

}  // namespace bunker::controller
