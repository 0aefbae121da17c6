// One question about a bunker's processes, from the call to the agent's answer.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "bunker/link/v1/agent_link.pb.h"
#include "controller/api/bunker_use.h"
#include "controller/api/guest_talk.h"

namespace bunker::controller {

class GuestAsk final : public GuestTalkListener, public std::enable_shared_from_this<GuestAsk> {
 public:
  // Once, on the loop.
  using Done = std::function<void(absl::StatusOr<link::v1::ProcessAnswer>)>;

  // Sends `call` and, where it is a write, `data` after it. A bunker that is coming up is waited
  // for; the call's cancel ends it. On the loop, in the call's turn.
  static void Run(CallContext& context, GuestTalkBackend* backend, std::string bunker_ref,
                  link::v1::ProcessCall call, std::string data, Done done);

  GuestAsk(Core& core, link::v1::ProcessCall call, std::string data, Done done)
      : core_(core), call_(std::move(call)), data_(std::move(data)), done_(std::move(done)) {}

  void OnOpen(std::shared_ptr<GuestTalk> talk) override;
  void OnFrame(link::v1::AgentTunnelFrame frame) override;
  void OnWritable() override;
  void OnClosed(const absl::Status& why) override;

 private:
  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Finish(absl::StatusOr<link::v1::ProcessAnswer> answer)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Core& core_;
  std::shared_ptr<BunkerUse> use_;  // the loop's
  Loop::TimerId timer_ = 0;         // the loop's

  Mutex mutex_;
  link::v1::ProcessCall call_ ABSL_GUARDED_BY(mutex_);
  std::string data_ ABSL_GUARDED_BY(mutex_);
  size_t data_sent_ ABSL_GUARDED_BY(mutex_) = 0;
  bool data_closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<GuestTalk> talk_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  Done done_;
};

}  // namespace bunker::controller
