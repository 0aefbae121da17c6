#include "common/wire/session.h"

namespace bunker::wire {

std::string HostGreeting(uint64_t epoch) {
  const std::string hello = EncodeFrame(epoch, 0, FrameType::kHello, {});
  std::string greeting = hello;
  greeting.append(kResyncBytes, '\0');
  greeting.append(hello);
  return greeting;
}

HostSession::HostSession(uint64_t epoch) : epoch_(epoch) {
  parser_.HuntFor(epoch, FrameType::kHelloAck);
}

HostSession::Event HostSession::Next(Frame* frame) {
  for (;;) {
    const bool was_ready = ready();
    switch (parser_.Next(frame)) {
      case FrameParser::Result::kNeedMore:
        return Event::kNeedMore;
      case FrameParser::Result::kGarbage:
        if (was_ready) return Event::kViolation;
        break;
      case FrameParser::Result::kFrame:
        if (!was_ready) return Event::kReady;
        if (frame->epoch != epoch_) return Event::kViolation;
        return Event::kFrame;
    }
  }
}

GuestSession::Event GuestSession::Next(Frame* frame) {
  for (;;) {
    switch (parser_.Next(frame)) {
      case FrameParser::Result::kNeedMore:
        return Event::kNeedMore;
      case FrameParser::Result::kGarbage:
        break;
      case FrameParser::Result::kFrame:
        if (frame->type == FrameType::kHello) {
          // The second Hello of the same greeting says nothing new.
          if (established_ && frame->epoch == epoch_) break;
          established_ = true;
          epoch_ = frame->epoch;
          return Event::kNewSession;
        }
        if (established_ && frame->epoch == epoch_) return Event::kFrame;
        break;  // of a session that is over
    }
  }
}

}  // namespace bunker::wire
