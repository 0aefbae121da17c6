#include "controller/api/guest_ask.h"

#include <algorithm>
#include <utility>

#include "controller/api/errors.h"

namespace bunker::controller {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);
constexpr size_t kChunkBytes = 256 * 1024;

}  // namespace

void GuestAsk::Run(CallContext& context, GuestTalkBackend* backend, std::string bunker_ref,
                   link::v1::ProcessCall call, std::string data, Done done) {
  // A write takes as long as the process does; the agent bounds each piece of it.
  const bool bounded = !call.has_write();
  auto ask = std::make_shared<GuestAsk>(context.core, std::move(call), std::move(data),
                                        std::move(done));
  if (backend == nullptr) {
    context.turn.AfterCommit([ask](const absl::Status&) {
      ask->done_(ApiError("UNAVAILABLE", "this controller has no link to workers; start one"));
    });
    return;
  }
  if (context.info.cancel != nullptr) {
    *context.info.cancel = [ask] {
      MutexLock lock(ask->mutex_);
      ask->Finish(ApiError("UNAVAILABLE", "the client went away"));
    };
  }
  ask->use_ = BunkerUse::Begin(
      context, std::move(bunker_ref), context.turn.now() + kPatience, /*counts=*/true,
      [ask, backend, bounded](const absl::StatusOr<RowPtr<Bunker>>& bunker) {
        {
          MutexLock lock(ask->mutex_);
          if (!bunker.ok()) return ask->Finish(bunker.status());
          if (ask->ended_) return;
        }
        if (bounded) {
          ask->timer_ = ask->core_.loop().AddTimer(kPatience, [ask] {
            MutexLock lock(ask->mutex_);
            ask->Finish(ApiError("UPSTREAM_TIMEOUT",
                                 "the bunker's worker did not answer in time; try again"));
          });
        }
        backend->Open(**bunker, ask);
      });
}

void GuestAsk::OnOpen(std::shared_ptr<GuestTalk> talk) {
  MutexLock lock(mutex_);
  if (ended_) return talk->End();
  talk_ = std::move(talk);
  link::v1::ControllerTunnelFrame opening;
  data_closed_ = !call_.has_write();
  *opening.mutable_process() = std::move(call_);
  talk_->Write(std::move(opening));
  Pump();
  talk_->ReadOn();
}

void GuestAsk::Pump() {
  while (!data_closed_) {
    link::v1::ControllerTunnelFrame frame;
    const size_t size = std::min(kChunkBytes, data_.size() - data_sent_);
    if (size > 0) {
      frame.set_stdin(data_.data() + data_sent_, size);
      data_sent_ += size;
    } else {
      frame.set_stdin_close(true);
      data_closed_ = true;
    }
    if (!talk_->Write(std::move(frame))) return;
  }
}

void GuestAsk::OnWritable() {
  MutexLock lock(mutex_);
  if (talk_ != nullptr) Pump();
}

void GuestAsk::OnFrame(link::v1::AgentTunnelFrame frame) {
  MutexLock lock(mutex_);
  if (ended_) return;
  if (frame.has_process()) return Finish(std::move(*frame.mutable_process()));
  if (frame.has_error()) return Finish(GuestErrorOf(frame.error()));
  talk_->ReadOn();  // of a newer agent
}

void GuestAsk::OnClosed(const absl::Status& why) {
  MutexLock lock(mutex_);
  talk_ = nullptr;
  Finish(!why.ok() ? why
                   : ApiError("UNAVAILABLE",
                              "the connection to the worker broke before the answer came; list "
                              "the processes before asking again"));
}

void GuestAsk::Finish(absl::StatusOr<link::v1::ProcessAnswer> answer) {
  if (std::exchange(ended_, true)) return;
  data_ = std::string();
  if (talk_ != nullptr) std::exchange(talk_, nullptr)->End();
  core_.Post([self = shared_from_this(), answer = std::move(answer)](Engine&, Turn&) mutable {
    self->core_.loop().CancelTimer(self->timer_);
    if (self->use_) {
      self->use_->Cancel();
      self->use_->End();
    }
    std::exchange(self->done_, nullptr)(std::move(answer));
  });
}

}  // namespace bunker::controller
