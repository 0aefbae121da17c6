#include "agent/reconcile/console_tunnel.h"

#include <algorithm>
#include <utility>

#include "common/base/reason.h"

namespace bunker::agent {

void ConsoleTunnel::Serve(const Parts& parts, const link::v1::OpenTunnel& request,
                          std::shared_ptr<Tunnel> tunnel) {
  std::shared_ptr<ConsoleTunnel> console(new ConsoleTunnel(parts, request, tunnel));
  parts.live.insert(console);
  tunnel->Serve(console.get());
}

void ConsoleTunnel::OnLog(const link::v1::LogRead& read) {
  follow_ = read.follow();
  offset_ = read.offset();
  Read();
}

void ConsoleTunnel::Read() {
  parts_.bunkers.ReadConsole(
      bunker_id_, incarnation_,
      [weak = weak_from_this()](const absl::StatusOr<ConsoleLog>& log) {
        const auto self = weak.lock();
        if (self == nullptr || self->ended_) return;
        log.ok() ? self->Tell(*log) : self->End(log.status());
      });
}

void ConsoleTunnel::Tell(const ConsoleLog& log) {
  if (offset_ > log.end()) {
    return End(ReasonError(absl::StatusCode::kInvalidArgument, "VALIDATION_ERROR",
                           "offset lies behind the console's end, which is " +
                               std::to_string(log.end())));
  }
  if (!std::exchange(begun_, true)) tunnel_->SendStarted(0);
  if (offset_ < log.begin) tunnel_->SendGap(log.begin - std::exchange(offset_, log.begin));
  bool room = true;
  while (room && offset_ < log.end()) {
    const std::string_view piece = log.From(offset_).substr(0, Tunnel::kMaxOutputBytes);
    room = tunnel_->SendOutput(false, piece);
    offset_ += piece.size();
  }
  waits_for_room_ = offset_ < log.end();
  if (waits_for_room_) return;
  if (!follow_) {
    ended_ = true;
    return tunnel_->SendLogEnd(offset_);
  }
  parts_.loop.AddTimer(kPoll, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self != nullptr && !self->ended_) self->Read();
  });
}

void ConsoleTunnel::OnWritable() {
  if (!ended_ && std::exchange(waits_for_room_, false)) Read();
}

void ConsoleTunnel::End(const absl::Status& status) {
  ended_ = true;
  tunnel_->SendError(status);
}

void ConsoleTunnel::OnClosed(const absl::Status&) {
  ended_ = true;
  parts_.live.erase(shared_from_this());  // may be the end of this object
}

}  // namespace bunker::agent
