// A conversation with the guest of one bunker, by way of its worker's agent, as the API sees it.
// The link implements it over a tunnel; the wiring brings both together, so that neither includes
// the other. Both ends are bounded: nobody sends what the other has no room for.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "bunker/link/v1/agent_link.pb.h"
#include "controller/engine/change_set.h"

namespace bunker::controller {

// The caller's hand on it. Thread-safe.
class GuestTalk {
 public:
  virtual ~GuestTalk() = default;
  // False: nothing more before OnWritable(); this frame is taken all the same. Once the
  // conversation has ended, frames are dropped.
  virtual bool Write(link::v1::ControllerTunnelFrame frame) = 0;
  // The next frame may come: one call, one OnFrame().
  virtual void ReadOn() = 0;
  // Ends it. The agent then ends what ran for it in the guest.
  virtual void End() = 0;
};

// What the caller hears. On any thread, OnFrame() calls not overlapping; nothing here may block.
class GuestTalkListener {
 public:
  virtual ~GuestTalkListener() = default;
  // The agent is there. At most once, first.
  virtual void OnOpen(std::shared_ptr<GuestTalk> talk) = 0;
  virtual void OnFrame(link::v1::AgentTunnelFrame frame) = 0;
  virtual void OnWritable() = 0;
  // Last, exactly once. OK: the agent closed it, having said all.
  virtual void OnClosed(const absl::Status& why) = 0;
};

class GuestTalkBackend {
 public:
  virtual ~GuestTalkBackend() = default;
  // Asks the bunker's worker for a conversation; whatever happens, OnClosed() comes. On the core's
  // loop. UNAVAILABLE and UPSTREAM_TIMEOUT where the worker does not come.
  virtual void Open(const Bunker& bunker, std::shared_ptr<GuestTalkListener> listener) = 0;
};

// What an agent's last words mean to the client.
absl::Status GuestErrorOf(const link::v1::TunnelError& error);

}  // namespace bunker::controller
