#include "agent/guest/stream_peer.h"

namespace bunker::guest {

using wire::FrameType;

void SendError(Outbox* outbox, uint32_t stream, const CommandError& error) {
  v1::ExecError message;
  message.set_kind(error.kind);
  message.set_message(error.message);
  outbox->Send(stream, FrameType::kExecError, message.SerializeAsString());
}

void StreamPeer::OnOutput(bool is_stderr, std::string_view data) {
  credit_.Spend(static_cast<uint32_t>(data.size()));
  outbox_->SendData(stream_, is_stderr ? FrameType::kStderr : FrameType::kStdout, data.size());
}

void StreamPeer::OnStdinTaken(size_t bytes) {
  const uint32_t grant = stdin_credit_.Consume(bytes);
  if (grant == 0) return;
  v1::Credit credit;
  credit.set_bytes(grant);
  outbox_->Send(stream_, FrameType::kCredit, credit.SerializeAsString());
}

void StreamPeer::OnStarted(pid_t pid) {
  if (!tell_start_) return;
  v1::Started started;
  started.set_pid(static_cast<uint32_t>(pid));
  outbox_->Send(stream_, FrameType::kStarted, started.SerializeAsString());
}

void StreamPeer::OnExit(const v1::ExecExit& exit) {
  outbox_->Send(stream_, FrameType::kExecExit, exit.SerializeAsString());
}

void StreamPeer::OnFailed(const CommandError& error) { SendError(outbox_, stream_, error); }

}  // namespace bunker::guest
