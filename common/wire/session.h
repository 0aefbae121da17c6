// The handshake with which a host connection takes a guest's byte stream over, and the credit
// that keeps data streams bounded.
//
// The stream outlives host connections: a dead host may have left half a frame in front of us,
// and what the guest wrote for it may still come out. So the host sends
//
//   Hello(E) · kResyncBytes zero bytes · Hello(E)        E = 64 fresh random bits
//
// A guest between two frames takes the first Hello. A guest in the middle of a frame of an
// earlier host swallows at most one frame's worth, that is zeros, finds its checksum wrong, and
// takes the second. From then on it drops every frame of another epoch. The host drops every
// byte until HelloAck(E) arrives, which nobody who can't guess E can forge.
//
// Pure: no I/O. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "common/wire/frame.h"

namespace bunker::wire {

inline constexpr size_t kResyncBytes = kHeaderBytes + kMaxPayloadBytes;
// Bytes of data that may be on their way per direction of a stream before credit comes back.
inline constexpr uint32_t kWindowBytes = 256 * 1024;

// What the host writes first on a new connection.
std::string HostGreeting(uint64_t epoch);

// The host's side of the bytes that come from a guest.
class HostSession {
 public:
  enum class Event {
    kNeedMore,
    kReady,     // `frame` is the HelloAck
    kFrame,     // a frame of this session
    kViolation  // the guest broke the protocol: this connection must end
  };
  explicit HostSession(uint64_t epoch);

  FrameParser& parser() { return parser_; }
  Event Next(Frame* frame);
  bool ready() const { return !parser_.hunting(); }
  uint64_t epoch() const { return epoch_; }

 private:
  uint64_t epoch_;
  FrameParser parser_;
};

// The guest's side of the bytes that come from its host.
class GuestSession {
 public:
  enum class Event {
    kNeedMore,
    kNewSession,  // answer it with a HelloAck; everything of earlier sessions is void
    kFrame        // a frame of this session
  };

  FrameParser& parser() { return parser_; }
  Event Next(Frame* frame);
  bool established() const { return established_; }
  uint64_t epoch() const { return epoch_; }

 private:
  FrameParser parser_;
  bool established_ = false;
  uint64_t epoch_ = 0;
};

// The sender's count of what it may still send.
class SendCredit {
 public:
  uint32_t available() const { return available_; }
  void Spend(uint32_t bytes) { available_ -= bytes; }  // REQUIRES: bytes <= available()
  // False where the peer grants nothing, or more than was ever spent: a lie.
  bool Grant(uint32_t bytes) {
    if (bytes == 0 || bytes > kWindowBytes - available_) return false;
    available_ += bytes;
    return true;
  }

 private:
  uint32_t available_ = kWindowBytes;
};

// The receiver's count of what the peer may still send, and of what to give back.
class ReceiveCredit {
 public:
  // False where the peer sent more than it may.
  bool Receive(size_t bytes) {
    if (bytes > outstanding_) return false;
    outstanding_ -= static_cast<uint32_t>(bytes);
    return true;
  }
  // `bytes` were consumed. Returns what to grant now (0: not yet), in steps of half a window.
  uint32_t Consume(size_t bytes) {
    consumed_ += static_cast<uint32_t>(bytes);
    if (consumed_ < kWindowBytes / 2) return 0;
    const uint32_t grant = consumed_;
    consumed_ = 0;
    outstanding_ += grant;
    return grant;
  }
  // What was received and not yet consumed.
  uint32_t held() const { return kWindowBytes - outstanding_ - consumed_; }

 private:
  uint32_t outstanding_ = kWindowBytes;
  uint32_t consumed_ = 0;
};

}  // namespace bunker::wire
