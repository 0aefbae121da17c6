// The host's ear on one command's stream: output goes out as it comes, as far as the host granted.
#pragma once

#include "agent/guest/exec_peer.h"
#include "agent/guest/outbox.h"
#include "common/wire/session.h"

namespace bunker::guest {

class StreamPeer final : public ExecPeer {
 public:
  // `outbox` outlives this.
  StreamPeer(uint32_t stream, bool tell_start, Outbox* outbox)
      : stream_(stream), tell_start_(tell_start), outbox_(outbox) {}

  // From the host. False: it broke the credit rules.
  bool Grant(uint32_t bytes) { return credit_.Grant(bytes); }
  bool ReceiveStdin(size_t bytes) { return bytes > 0 && stdin_credit_.Receive(bytes); }

  size_t Room() const override { return outbox_->HasRoom() ? credit_.available() : 0; }
  void OnOutput(bool is_stderr, std::string_view data) override;
  void OnStdinTaken(size_t bytes) override;
  void OnStdinDropped(size_t bytes) override { OnStdinTaken(bytes); }
  void OnStarted(pid_t pid) override;
  void OnExit(const v1::ExecExit& exit) override;
  void OnFailed(const CommandError& error) override;

 private:
  const uint32_t stream_;
  const bool tell_start_;
  Outbox* const outbox_;
  wire::SendCredit credit_;  // shared by both outputs
  wire::ReceiveCredit stdin_credit_;
};

// Answers a stream with a refusal, its last frame.
void SendError(Outbox* outbox, uint32_t stream, const CommandError& error);

}  // namespace bunker::guest
