// A guest's PID 1 that is no friend: boots as ours does, then does to the agent what its image's
// /etc/marker says. For tests alone; deploy/guest-kernel --init puts it into an initrd.
//
//   silent      never reads, never writes
//   noise       random bytes, for ever
//   halves      a frame whose second half never comes
//   mute        shakes hands and answers nothing
//   lengths     shakes hands; then a header that tells of more than a frame may hold
//   checksum    shakes hands; then a frame whose payload is another one than its checksum's
//   boot-error  says with many odd bytes that it could not boot
//   Those below let the bunker run, and begin with the first command:
//   credit      grants what nobody spent, again and again
//   output      sends output that nobody gave it credit for
//   stranger    speaks of streams that never were
//   flood       random bytes as fast as they go
//   unread      takes nothing from its channel any more
//   twice       answers as it should, but ends the command twice
//   grudge      breaks a rule, and again right after every handshake from then on
#include <fcntl.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "agent/guest/boot.h"
#include "agent/guest/exec_session.h"
#include "agent/guest/small_file.h"
#include "bunker/guest/v1/guest.pb.h"
#include "common/wire/session.h"

namespace bunker::guest {

uint64_t NowMicros() {  // which exec_session.cc has, with all else that is left out here
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

namespace {

using wire::FrameType;
using Event = wire::GuestSession::Event;

class HostilePeer {
 public:
  HostilePeer(int port, std::string kind) : port_(port), kind_(std::move(kind)) {}

  [[noreturn]] void Run() {
    if (kind_ == "silent") WaitForEver();
    for (;;) {
      if (kind_ == "noise") Write(Noise());
      wire::Frame frame;
      if (kind_ != "noise" && Read(&frame) == Event::kNewSession) {
        Greet();
      } else if (kind_ != "noise") {
        OnFrame(frame);
      }
    }
  }

 private:
  [[noreturn]] static void WaitForEver() {
    for (;;) poll(nullptr, 0, -1);
  }

  // Whole, or as much as there is a host for.
  void Write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t written = write(port_, bytes.data(), bytes.size());
      if (written > 0) {
        bytes.remove_prefix(static_cast<size_t>(written));
        continue;
      }
      pollfd wait{port_, POLLOUT, 0};
      poll(&wait, 1, 100);
      if ((wait.revents & POLLHUP) != 0) return;
    }
  }

  void Send(uint32_t stream, FrameType type, std::string_view payload) {
    Write(wire::EncodeFrame(session_.epoch(), stream, type, payload));
  }

  Event Read(wire::Frame* frame) {
    for (;;) {
      const Event event = session_.Next(frame);
      if (event != Event::kNeedMore) return event;
      size_t capacity = 0;
      char* room = session_.parser().Reserve(&capacity);
      const ssize_t got = read(port_, room, capacity);
      session_.parser().Commit(got > 0 ? static_cast<size_t>(got) : 0);
      if (got <= 0) {
        pollfd wait{port_, POLLIN, 0};
        poll(&wait, 1, 100);
      }
    }
  }

  std::string Noise() {
    std::string noise(65536, '\0');
    for (char& c : noise) {
      seed_ = seed_ * 6364136223846793005u + 1442695040888963407u;
      c = static_cast<char>(seed_ >> 56);
    }
    return noise;
  }

  void Greet() {
    v1::GuestHello hello;
    hello.set_protocol_version(1);
    if (kind_ == "boot-error") {
      std::string error;
      for (int c = 0; c < 2000; ++c) error += static_cast<char>(1 + c % 126);
      hello.set_boot_error(error);
    }
    Send(0, FrameType::kHelloAck, hello.SerializeAsString());
    std::string frame = wire::EncodeFrame(session_.epoch(), 7, FrameType::kStdout, "0123456789");
    if (kind_ == "lengths") {
      frame[6] = '\x7f';  // of the length's four bytes; the header's own checksum is now wrong, too
      Write(frame);
    } else if (kind_ == "checksum" || bears_grudge_) {
      frame.back() = 'x';
      Write(frame);
    } else if (kind_ == "halves") {
      Write(frame.substr(0, frame.size() / 2));
      WaitForEver();
    } else if (kind_ == "mute") {
      WaitForEver();
    }
  }

  void OnFrame(const wire::Frame& frame) {
    if (frame.type == FrameType::kConfigure) {
      Send(0, FrameType::kConfigured, v1::ConfigureResult().SerializeAsString());
    } else if (frame.type == FrameType::kPing) {
      Send(0, FrameType::kPong, frame.payload);
    } else if (frame.type == FrameType::kExecStart || frame.type == FrameType::kFileStart ||
               frame.type == FrameType::kProcessCall) {
      Misbehave(frame.stream);
    }
  }

  void Misbehave(uint32_t stream) {
    v1::Credit credit;
    credit.set_bytes(UINT32_MAX);
    if (kind_ == "credit") {
      for (int i = 0; i < 1000; ++i) Send(stream, FrameType::kCredit, credit.SerializeAsString());
    } else if (kind_ == "output") {
      const std::string data(wire::kMaxDataBytes, 'x');
      for (int i = 0; i < 200; ++i) Send(stream, FrameType::kStdout, data);
    } else if (kind_ == "stranger") {
      Send(stream + 1000, FrameType::kStdout, "x");
    } else if (kind_ == "flood") {
      for (;;) Write(Noise());
    } else if (kind_ == "unread") {
      WaitForEver();
    } else if (kind_ == "grudge") {
      bears_grudge_ = true;
      Send(stream, FrameType::kHello, "");
    } else if (kind_ == "twice") {
      for (int i = 0; i < 2; ++i)
        Send(stream, FrameType::kExecExit, v1::ExecExit().SerializeAsString());
    }
  }

  const int port_;
  const std::string kind_;
  wire::GuestSession session_;
  uint64_t seed_ = 1;
  bool bears_grudge_ = false;
};

[[noreturn]] void RunAsHostileInit() {
  Fd port, rw_root;
  std::string kind;
  if (BootEarly().ok() && LoadModules().ok() && OpenAgentPort(&port).ok() &&
      EnterRoot(&rw_root).ok() &&
      ReadSmallFile(AT_FDCWD, "/etc/marker", 100, &kind).ok()) {
    HostilePeer(port.get(), kind).Run();
  }
  _exit(1);  // the kernel panics: no guest of any kind
}

}  // namespace
}  // namespace bunker::guest

int main() {
  if (getpid() != 1) return 2;
  bunker::guest::RunAsHostileInit();
}
