#include "agent/link/tunnel.h"

#include <chrono>
#include <utility>

#include "agent/link/channel.h"
#include "common/base/converters.h"
#include "common/base/reason.h"

namespace bunker::agent {
namespace {

using link::v1::AgentTunnelFrame;
using link::v1::ControllerTunnelFrame;

constexpr size_t kMaxWaitingBytes = 1 << 20;
// Frames of 64 KiB: the mark of kHighWaterBytes stops a handler long before.
constexpr size_t kMaxQueuedFrames = 1024;
constexpr size_t kBusyFrames = 64;  // from here on output is gathered
constexpr size_t kPieceBytes = 64;  // what a piece of output costs beside its data
// A file's data is gathered while one frame is on its way: each message costs several wake-ups.
constexpr size_t kBusyFileFrames = 1;

// The bytes that a frame is there for.
size_t DataBytes(const AgentTunnelFrame& frame) {
  return frame.has_file_data() ? frame.file_data().size() : frame.output().data().size();
}

}  // namespace

std::shared_ptr<Tunnel> Tunnel::Open(std::shared_ptr<LoopGate> gate,
                                     const std::shared_ptr<grpc::Channel>& channel,
                                     const std::string& credential, const std::string& tunnel_id,
                                     absl::Duration deadline) {
  auto tunnel = std::shared_ptr<Tunnel>(new Tunnel);
  // Events hold the tunnel: it lives until its stream has ended.
  Stream::Events events;
  events.on_read = [tunnel, gate](ControllerTunnelFrame frame) {
    gate->Post([tunnel, frame = std::move(frame)]() mutable { tunnel->OnFrame(std::move(frame)); });
  };
  events.on_written = [tunnel, gate] { gate->Post([tunnel] { tunnel->OnWritten(); }); };
  events.on_done = [tunnel, gate](const grpc::Status& status) {
    gate->Post([tunnel, error = FromGrpc(status)] { tunnel->OnDone(error); });
  };
  tunnel->stub_ = link::v1::AgentLink::NewStub(channel);
  tunnel->stream_ = Stream::Create(kMaxQueuedFrames, std::move(events));
  grpc::ClientContext& context = tunnel->stream_->context();
  context.AddMetadata("authorization", "Bearer " + credential);
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(deadline));
  tunnel->stream_->Start(tunnel->stream_, [&](grpc::ClientContext* ctx, Stream::Reactor* reactor) {
    tunnel->stub_->async()->Tunnel(ctx, reactor);
  });
  AgentTunnelFrame hello;
  hello.mutable_hello()->set_tunnel_id(tunnel_id);
  tunnel->stream_->Write(std::move(hello));
  return tunnel;
}

void Tunnel::Serve(TunnelHandler* handler) {
  handler_ = handler;
  Deliver();
}

void Tunnel::ServeBy(Choose choose) {
  choose_ = std::move(choose);
  Deliver();
}

bool Tunnel::SendOutput(bool is_stderr, std::string_view data) {
  if (closed_ || result_sent_) return true;
  // A command that writes a line at a time makes many small pieces: they are gathered while the
  // stream is busy, so that neither its queue nor the wire is full of tiny frames.
  while (!data.empty()) {
    const bool fits = !gathered_.empty() && gathered_.back().has_output() &&
                      gathered_.back().output().stderr() == is_stderr &&
                      gathered_.back().output().data().size() < kMaxOutputBytes;
    if (!fits) {
      AgentTunnelFrame frame;
      frame.mutable_output()->set_stderr(is_stderr);
      Gather(std::move(frame));
    }
    std::string& piece = *gathered_.back().mutable_output()->mutable_data();
    const size_t size = std::min(data.size(), kMaxOutputBytes - piece.size());
    piece.append(data.substr(0, size));
    gathered_bytes_ += size;
    data.remove_prefix(size);
  }
  FlushOutput();
  return BelowMark();
}

// Once above it stays so until OnWritable() was called: whoever waits for that is never forgotten,
// also where the queue has emptied before the next call.
bool Tunnel::BelowMark() {
  if (stream_->queued_bytes() + gathered_bytes_ > kHighWaterBytes) above_mark_ = true;
  return !above_mark_;
}

void Tunnel::Gather(AgentTunnelFrame frame) {
  gathered_.push_back(std::move(frame));
  gathered_bytes_ += kPieceBytes;
}

void Tunnel::SendStarted(uint32_t pid) {
  if (closed_ || result_sent_) return;
  AgentTunnelFrame frame;
  frame.mutable_started()->set_pid(pid);
  Gather(std::move(frame));
  FlushOutput();
}

void Tunnel::SendGap(uint64_t bytes) {
  if (closed_ || result_sent_) return;
  AgentTunnelFrame frame;
  frame.mutable_gap()->set_bytes(bytes);
  Gather(std::move(frame));
  FlushOutput();
}

void Tunnel::SendProcess(link::v1::ProcessAnswer answer) {
  if (closed_ || result_sent_) return;
  result_sent_ = true;
  AgentTunnelFrame frame;
  *frame.mutable_process() = std::move(answer);
  SendLast(std::move(frame));
}

void Tunnel::SendLogEnd(uint64_t next_offset) {
  if (closed_ || result_sent_) return;
  result_sent_ = true;
  AgentTunnelFrame frame;
  frame.mutable_log_end()->set_next_offset(next_offset);
  SendLast(std::move(frame));
}

void Tunnel::FlushOutput() {
  while (!gathered_.empty()) {
    const size_t busy = gathered_.front().has_file_data() ? kBusyFileFrames : kBusyFrames;
    if (stream_->queued_messages() >= busy) break;
    gathered_bytes_ -= DataBytes(gathered_.front()) + kPieceBytes;
    AgentTunnelFrame frame = std::move(gathered_.front());
    gathered_.pop_front();
    stream_->Write(std::move(frame));
  }
  if (!gathered_.empty() || !last_) return;
  stream_->Write(*std::exchange(last_, std::nullopt));
  stream_->WritesDone();
}

void Tunnel::SendExit(const link::v1::ExecExit& exit) {
  if (closed_ || result_sent_) return;
  result_sent_ = true;
  AgentTunnelFrame frame;
  *frame.mutable_exit() = exit;
  SendLast(std::move(frame));
}

void Tunnel::SendFileHead(link::v1::FileHead head) {
  if (closed_ || result_sent_) return;
  AgentTunnelFrame frame;
  *frame.mutable_file_head() = std::move(head);
  stream_->Write(std::move(frame));
}

bool Tunnel::SendFileData(std::string data) {
  if (closed_ || result_sent_) return true;
  gathered_bytes_ += data.size();
  if (!gathered_.empty() && gathered_.back().has_file_data() &&
      gathered_.back().file_data().size() + data.size() <= kMaxFileBytes) {
    gathered_.back().mutable_file_data()->append(data);
  } else {
    AgentTunnelFrame frame;
    frame.set_file_data(std::move(data));
    Gather(std::move(frame));
  }
  FlushOutput();
  return BelowMark();
}

void Tunnel::SendFileEnd(link::v1::FileEnd end) {
  if (closed_ || result_sent_) return;
  result_sent_ = true;
  AgentTunnelFrame frame;
  *frame.mutable_file_end() = std::move(end);
  SendLast(std::move(frame));
}

void Tunnel::SendError(const absl::Status& error) {
  if (closed_ || result_sent_) return;
  result_sent_ = true;
  AgentTunnelFrame frame;
  const std::string reason = ReasonOf(error);
  frame.mutable_error()->set_code(reason.empty() ? "INTERNAL" : reason);
  frame.mutable_error()->set_message(std::string(error.message()));
  SendLast(std::move(frame));
}

void Tunnel::SendLast(AgentTunnelFrame frame) {
  last_ = std::move(frame);
  FlushOutput();
  waiting_.clear();
  waiting_bytes_ = 0;
  ReadOn();
}

void Tunnel::StdinTaken() {
  stdin_pending_ = false;
  if (closed_) return;
  Deliver();
}

void Tunnel::Cancel() {
  if (!closed_) stream_->Cancel();
}

void Tunnel::OnFrame(ControllerTunnelFrame frame) {
  if (closed_) return;
  if (result_sent_) return stream_->ReadNext();  // for the end of the stream; the rest is of no use
  // A cancel overtakes stdin that the process has not read.
  if (frame.frame_case() == ControllerTunnelFrame::kCancel && handler_ != nullptr) {
    stream_->ReadNext();
    handler_->OnCancel();
    return;
  }
  waiting_bytes_ += frame.ByteSizeLong();
  waiting_.push_back(std::move(frame));
  read_paused_ = true;
  ReadOn();
  Deliver();
}

void Tunnel::ReadOn() {
  if (!read_paused_ || waiting_bytes_ > kMaxWaitingBytes) return;
  read_paused_ = false;
  stream_->ReadNext();
}

void Tunnel::Deliver() {
  const auto self = shared_from_this();
  if (choose_ && (closed_ || !waiting_.empty())) {
    const auto choose = std::exchange(choose_, nullptr);
    return choose(waiting_.empty() ? ControllerTunnelFrame() : waiting_.front());
  }
  while (handler_ != nullptr && !waiting_.empty() && !stdin_pending_) {
    ControllerTunnelFrame frame = std::move(waiting_.front());
    waiting_.pop_front();
    waiting_bytes_ -= frame.ByteSizeLong();
    switch (frame.frame_case()) {
      case ControllerTunnelFrame::kExec:
        handler_->OnExec(frame.exec());
        break;
      case ControllerTunnelFrame::kProcess:
        handler_->OnProcess(frame.process());
        break;
      case ControllerTunnelFrame::kAttach:
        handler_->OnAttach(frame.attach());
        break;
      case ControllerTunnelFrame::kLog:
        handler_->OnLog(frame.log());
        break;
      case ControllerTunnelFrame::kResize:
        handler_->OnResize(frame.resize());
        break;
      case ControllerTunnelFrame::kFile:
        handler_->OnFile(frame.file());
        break;
      case ControllerTunnelFrame::kFileCommit:
        handler_->OnFileCommit(frame.file_commit().size());
        break;
      case ControllerTunnelFrame::kFileData:
        stdin_pending_ = true;
        handler_->OnStdin(std::move(*frame.mutable_file_data()));
        break;
      case ControllerTunnelFrame::kStdin:
        stdin_pending_ = true;
        handler_->OnStdin(std::move(*frame.mutable_stdin()));
        break;
      case ControllerTunnelFrame::kStdinClose:
        handler_->OnStdinClose();
        break;
      case ControllerTunnelFrame::kCancel:
        handler_->OnCancel();
        break;
      case ControllerTunnelFrame::FRAME_NOT_SET:
        break;  // of a newer controller: nothing that this agent could do
    }
    if (!closed_) ReadOn();
  }
  if (closed_ && handler_ != nullptr) {
    waiting_.clear();
    std::exchange(handler_, nullptr)->OnClosed(why_closed_);
  }
}

void Tunnel::OnWritten() {
  if (closed_) return;
  FlushOutput();
  if (!above_mark_ || stream_->queued_bytes() + gathered_bytes_ > kHighWaterBytes / 2) return;
  above_mark_ = false;
  if (handler_ != nullptr) handler_->OnWritable();
}

void Tunnel::OnDone(const absl::Status& status) {
  closed_ = true;
  stream_.reset();
  why_closed_ = status;
  waiting_.clear();
  Deliver();
}

}  // namespace bunker::agent
