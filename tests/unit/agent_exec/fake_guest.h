// The far end of a guest's channel, played by a script: what tests of the host side talk to.
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "bunker/guest/v1/guest.pb.h"
#include "common/base/unique_fd.h"
#include "common/wire/session.h"

namespace bunker::agent {

using wire::FrameType;

// One connection's far end, played by a script on a thread of its own.
class FakeGuest {
 public:
  using Script = std::function<void(FakeGuest&)>;
  explicit FakeGuest(Script script) : script_(std::move(script)) {}
  ~FakeGuest() {
    if (thread_.joinable()) thread_.join();
  }

  // For GuestChannel::Options::connect: the first connection runs the script, later ones fail.
  absl::StatusOr<UniqueFd> Connect() {
    int ends[2];
    if (connected_.exchange(true) || socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) {
      return absl::UnavailableError("no second connection in this test");
    }
    fd_ = UniqueFd(ends[1]);
    thread_ = std::thread([this] {
      script_(*this);
      fd_.reset();
    });
    return UniqueFd(ends[0]);
  }

  // Waits for the host's greeting and answers it.
  void ShakeHands() {
    wire::Frame frame;
    while (Read(&frame) != wire::GuestSession::Event::kNewSession) {
    }
    guest::v1::GuestHello hello;
    hello.set_protocol_version(1);
    Send(0, FrameType::kHelloAck, hello.SerializeAsString());
  }
  // The next event of the session; kNeedMore where the host is gone.
  wire::GuestSession::Event Read(wire::Frame* frame) {
    for (;;) {
      const auto event = session_.Next(frame);
      if (event != wire::GuestSession::Event::kNeedMore) return event;
      size_t capacity = 0;
      char* room = session_.parser().Reserve(&capacity);
      const ssize_t got = read(fd_.get(), room, capacity);
      if (got <= 0) return event;
      session_.parser().Commit(static_cast<size_t>(got));
    }
  }
  // The stream of the next command, or operation on files, that the host starts.
  uint32_t AwaitExec() {
    wire::Frame frame;
    while (Read(&frame) == wire::GuestSession::Event::kFrame) {
      if (frame.type == FrameType::kExecStart || frame.type == FrameType::kFileStart)
        return frame.stream;
    }
    return 0;
  }
  bool Send(uint32_t stream, FrameType type, std::string_view payload) {
    return SendRaw(wire::EncodeFrame(session_.epoch(), stream, type, payload));
  }
  bool SendRaw(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  // Until the host hangs up.
  void DrainToEnd() {
    char buffer[65536];
    while (read(fd_.get(), buffer, sizeof(buffer)) > 0) {
    }
  }

 private:
  const Script script_;
  std::atomic<bool> connected_{false};
  UniqueFd fd_;
  std::thread thread_;
  wire::GuestSession session_;
};

}  // namespace bunker::agent
