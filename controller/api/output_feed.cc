#include "controller/api/output_feed.h"

#include <algorithm>
#include <utility>

#include "common/base/reason.h"
#include "controller/api/errors.h"

namespace bunker::controller {
namespace {

constexpr size_t kStdinChunkBytes = 256 * 1024;
constexpr size_t kEventBytes = 16 * 1024;  // JSON may make six times as many of them

absl::Status ClientGone() { return ApiError("UNAVAILABLE", "the client went away"); }

}  // namespace

absl::Status GuestErrorOf(const link::v1::TunnelError& error) {
  const ErrorRow* row = FindError(error.code());
  return ApiError(row == nullptr ? "INTERNAL" : row->reason, error.message());
}

void OutputFeed::Run(CallContext& context, GuestTalkBackend* backend, std::string bunker_ref,
                     absl::Time deadline, Start start, std::shared_ptr<StreamSink> sink) {
  auto feed = std::make_shared<OutputFeed>(context.core, std::move(start), std::move(sink));
  const std::weak_ptr<OutputFeed> weak = feed;
  feed->admission_ = context.admission;
  if (feed->admission_) {
    feed->admission_->OnLost([weak](const absl::Status& why) {
      const auto self = weak.lock();
      if (self == nullptr) return;
      MutexLock lock(self->mutex_);
      self->Finish(why);
    });
  }
  feed->sink_->Listen(
      [weak, core = &context.core] {
        core->Post([weak](Engine&, Turn&) {
          const auto self = weak.lock();
          if (self == nullptr) return;
          MutexLock lock(self->mutex_);
          self->Finish(ClientGone());
        });
      },
      [weak] {
        const auto self = weak.lock();
        if (self == nullptr) return;
        MutexLock lock(self->mutex_);
        self->Pump();
      });
  if (TerminalSink* terminal = feed->sink_->AsTerminal()) {
    terminal->OnInput([weak](TerminalSink::Input input) {
      if (const auto self = weak.lock()) self->OnInput(std::move(input));
    });
  }
  if (backend == nullptr) {
    context.turn.AfterCommit([feed](const absl::Status&) {
      MutexLock lock(feed->mutex_);
      feed->Finish(ApiError("UNAVAILABLE", "this controller has no link to workers; start one"));
    });
    return;
  }
  bool is_use = true;
  {
    MutexLock lock(feed->mutex_);
    is_use = feed->start_.is_use;
  }
  feed->use_ = BunkerUse::Begin(
      context, std::move(bunker_ref), deadline, is_use,
      [feed, backend](const absl::StatusOr<RowPtr<Bunker>>& bunker) {
        {
          MutexLock lock(feed->mutex_);
          if (!bunker.ok()) return feed->Finish(bunker.status());
          if (feed->ended_) return;
        }
        feed->ArmHeartbeat();
        backend->Open(**bunker, feed);
      });
}

void OutputFeed::ArmHeartbeat() {
  timer_ = core_.loop().AddTimer(kHeartbeat, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    {
      MutexLock lock(self->mutex_);
      if (self->ended_) return;
      if (self->begun_ && self->sink_->CanSend()) self->sink_->Heartbeat();
    }
    self->ArmHeartbeat();
  });
}

void OutputFeed::OnOpen(std::shared_ptr<GuestTalk> talk) {
  MutexLock lock(mutex_);
  if (ended_) return talk->End();
  talk_ = std::move(talk);
  talk_->Write(std::move(start_.opening));
  PumpStdin();
  Pump();
}

void OutputFeed::OnWritable() {
  MutexLock lock(mutex_);
  if (talk_ == nullptr) return;
  PumpStdin();
  if (std::exchange(input_waits_, false)) sink_->AsTerminal()->ReadOn();
}

void OutputFeed::OnInput(TerminalSink::Input input) {
  MutexLock lock(mutex_);
  if (talk_ == nullptr) return;
  link::v1::ControllerTunnelFrame frame;
  bool room = true;
  if (input.columns > 0) {
    frame.mutable_resize()->set_columns(input.columns);
    frame.mutable_resize()->set_rows(input.rows);
    room = talk_->Write(std::move(frame));
  }
  for (size_t at = 0; at < input.data.size(); at += kStdinChunkBytes) {
    link::v1::ControllerTunnelFrame piece;
    piece.set_stdin(input.data.substr(at, kStdinChunkBytes));
    room = talk_->Write(std::move(piece));
  }
  if (!room) {
    input_waits_ = true;
  } else {
    sink_->AsTerminal()->ReadOn();
  }
}

void OutputFeed::PumpStdin() {
  while (start_.closes_stdin) {
    link::v1::ControllerTunnelFrame frame;
    const size_t size = std::min(kStdinChunkBytes, start_.stdin_data.size() - stdin_sent_);
    if (size > 0) {
      frame.set_stdin(start_.stdin_data.data() + stdin_sent_, size);
      stdin_sent_ += size;
    } else {
      frame.set_stdin_close(true);
      start_.closes_stdin = false;
      start_.stdin_data = std::string();
    }
    if (!talk_->Write(std::move(frame))) return;
  }
}

void OutputFeed::OnFrame(link::v1::AgentTunnelFrame frame) {
  MutexLock lock(mutex_);
  if (ended_) return;
  reading_ = false;
  TakeLocked(std::move(frame));
  if (!ended_) Pump();
}

void OutputFeed::BeginLocked() {
  if (std::exchange(begun_, true)) return;
  sink_->Begin();
  if (TerminalSink* terminal = sink_->AsTerminal()) terminal->ReadOn();
}

void OutputFeed::TakeLocked(link::v1::AgentTunnelFrame frame) {
  switch (frame.frame_case()) {
    case link::v1::AgentTunnelFrame::kStarted:
      return BeginLocked();
    case link::v1::AgentTunnelFrame::kGap: {
      BeginLocked();
      v1::OutputEvent event;
      event.mutable_gap()->set_bytes(frame.gap().bytes());
      offset_ += frame.gap().bytes();
      return SendLocked(std::move(event));
    }
    case link::v1::AgentTunnelFrame::kOutput:
      BeginLocked();
      waiting_ = std::move(*frame.mutable_output());
      waiting_sent_ = 0;
      return;
    case link::v1::AgentTunnelFrame::kExit:
      BeginLocked();
      TellExit(frame.exit());
      return Finish(absl::OkStatus());
    case link::v1::AgentTunnelFrame::kLogEnd:
      BeginLocked();
      return Finish(absl::OkStatus());
    case link::v1::AgentTunnelFrame::kError:
      return Finish(GuestErrorOf(frame.error()));
    default:
      return;  // of a newer agent
  }
}

void OutputFeed::TellExit(const link::v1::ExecExit& exit) {
  v1::OutputEvent event;
  v1::ExecExit& told = *event.mutable_exit();
  if (exit.signal().empty()) {
    told.set_exit_code(exit.exit_code());
  } else {
    told.set_signal(exit.signal());
  }
  told.set_stdout_bytes(exit.stdout_bytes());
  told.set_stderr_bytes(exit.stderr_bytes());
  told.set_timed_out(exit.timed_out());
  told.set_duration_ms(exit.duration_ms());
  SendLocked(std::move(event));
}

void OutputFeed::SendLocked(v1::OutputEvent event) {
  if (start_.tells_offsets) event.set_offset(offset_);
  sink_->Send(event);
}

void OutputFeed::Pump() {
  if (ended_ || talk_ == nullptr || reading_) return;
  const std::string& data = waiting_.data();
  while (waiting_sent_ < data.size() && sink_->CanSend()) {
    const size_t size = std::min(kEventBytes, data.size() - waiting_sent_);
    v1::OutputEvent event;
    std::string& piece = waiting_.stderr() ? *event.mutable_stderr() : *event.mutable_stdout();
    piece.assign(data, waiting_sent_, size);
    waiting_sent_ += size;
    offset_ += size;
    SendLocked(std::move(event));
  }
  if (waiting_sent_ < data.size() || !sink_->CanSend()) return;
  reading_ = true;
  talk_->ReadOn();
}

void OutputFeed::OnClosed(const absl::Status& why) {
  MutexLock lock(mutex_);
  talk_ = nullptr;
  Finish(why.ok() ? ApiError("UNAVAILABLE",
                             "the connection to the worker broke while output was read; the bunker "
                             "keeps running, look at it before running a command again")
                  : why);
}

void OutputFeed::Finish(const absl::Status& why) {
  if (std::exchange(ended_, true)) return;
  // The tunnel's end makes the agent end what runs for nobody any more.
  if (talk_ != nullptr) std::exchange(talk_, nullptr)->End();
  sink_->End(why);
  // The rest is the loop's.
  core_.Post([self = shared_from_this()](Engine&, Turn&) {
    self->core_.loop().CancelTimer(self->timer_);
    if (self->use_) {
      self->use_->Cancel();
      self->use_->End();
    }
    if (self->admission_) self->admission_->OnLost(nullptr);
    self->admission_ = nullptr;
  });
}

}  // namespace bunker::controller
