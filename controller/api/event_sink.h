// One reader of a stream of events, for whichever transport carries it.
#pragma once

#include <functional>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace bunker::controller {

// Every call comes from the core's loop, but for the destructor.
template <typename Event>
class EventSink {
 public:
  virtual ~EventSink() = default;

  // The feed begins; nothing was sent before. `closed` may be called on any thread, once, when the
  // reader goes; `drained`, on any thread, whenever CanSend() has become true again.
  virtual void Begin(std::function<void()> closed, std::function<void()> drained) = 0;
  // Whether it takes another event now.
  virtual bool CanSend() = 0;
  virtual void Send(const Event& event) = 0;
  virtual void Heartbeat() = 0;
  // The last call. Before Begin(): the feed was refused.
  virtual void End(const absl::Status& why) = 0;
};

struct FeedOptions {
  absl::Duration heartbeat = absl::Seconds(15);
  // A reader who takes nothing for so long is dropped, with an error.
  absl::Duration patience = absl::Seconds(60);
};

}  // namespace bunker::controller
