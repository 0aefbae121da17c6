#include "agent/net/proxy_connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "agent/net/tls_hello.h"
#include "common/proc/deadline.h"

namespace bunker::agent {
namespace {

constexpr size_t kMaxHeldBytes = 256 * 1024;  // a direction
constexpr size_t kReadBytes = 64 * 1024;
constexpr absl::Duration kFirstBytesTimeout = absl::Seconds(20);
constexpr absl::Duration kConnectTimeout = absl::Seconds(20);
constexpr absl::Duration kIdleTimeout = absl::Minutes(10);

// The alert unrecognized_name, fatal.
constexpr std::string_view kTlsRefusal("\x15\x03\x03\x00\x02\x02\x70", 7);
constexpr std::string_view kHttpRefusal =
    "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 59\r\n"
    "Connection: close\r\n\r\nThe bunker's network profile does not allow this request.\r\n";

}  // namespace

ProxyConnection::ProxyConnection(EventLoop& loop, GuardPolicy& policy, UniqueFd guest, Ipv4 address,
                                 uint16_t port, std::function<void()> on_end)
    : loop_(loop),
      policy_(policy),
      guest_(std::move(guest)),
      address_(address),
      port_(port),
      on_end_(std::move(on_end)),
      gate_([this](const std::string& host) { return MayReach(host); }),
      active_at_(MonotonicTime()) {}

ProxyConnection::~ProxyConnection() {
  loop_.CancelTimer(timer_);
  if (guest_) loop_.UnwatchFd(guest_.get());
  if (far_) loop_.UnwatchFd(far_.get());
}

bool ProxyConnection::MayReach(const std::string& name) const {
  return policy_.MayResolve(name) && policy_.handed_out.Holds(address_, name, MonotonicTime()) &&
         policy_.MayHandOut(address_, name);
}

void ProxyConnection::Start() {
  if (!policy_.handed_out.HoldsAny(address_, MonotonicTime())) return Refuse("address", "", "");
  const int on = 1;
  setsockopt(guest_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  timer_ = loop_.AddTimer(kFirstBytesTimeout, [this] { OnTimer(); });
  Watch();
}

void ProxyConnection::OnTimer() {
  timer_ = 0;
  if (state_ == State::kSniffing) return Refuse("protocol", "", "");
  if (state_ == State::kConnecting) return End();
  const absl::Duration idle = MonotonicTime() - active_at_;
  if (idle >= kIdleTimeout) return End();
  timer_ = loop_.AddTimer(kIdleTimeout - idle, [this] { OnTimer(); });
}

void ProxyConnection::OnGuest(uint32_t ready) {
  active_at_ = MonotonicTime();
  if ((ready & EventLoop::kWritable) != 0 && !Write(guest_.get(), &in_)) return;
  if ((ready & (EventLoop::kReadable | EventLoop::kError)) != 0 && !ReadGuest()) return;
  Watch();
}

bool ProxyConnection::ReadGuest() {
  if (out_.read_ended || out_.bytes.size() >= kMaxHeldBytes) return true;
  std::array<char, kReadBytes> bytes;
  const ssize_t count = recv(guest_.get(), bytes.data(), bytes.size(), 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (count < 0) {
    End();
    return false;
  }
  if (count == 0) {
    out_.read_ended = true;
    if (state_ == State::kSniffing) {
      End();
      return false;
    }
    return far_ && state_ == State::kCarrying ? Write(far_.get(), &out_) : true;
  }
  return TakeGuestBytes({bytes.data(), static_cast<size_t>(count)});
}

bool ProxyConnection::TakeGuestBytes(std::string_view bytes) {
  if (state_ == State::kSniffing) {
    sniffed_.append(bytes);
    return Sniff();
  }
  if (is_http_) {
    if (!Gate(bytes)) return false;
  } else {
    out_.bytes.append(bytes);
  }
  return state_ == State::kCarrying ? Write(far_.get(), &out_) : true;
}

bool ProxyConnection::Sniff() {
  if (LooksLikeTls(sniffed_)) {
    const TlsHello hello = ReadTlsHello(sniffed_);
    if (hello.result == Sniffed::kMore) return true;
    if (hello.result == Sniffed::kRefused || !MayReach(hello.name)) {
      Refuse("name", hello.name, kTlsRefusal);
      return false;
    }
    out_.bytes = std::exchange(sniffed_, "");
    return Dial(hello.name);
  }
  if (!LooksLikeHttp(sniffed_)) {
    Refuse("protocol", "", "");
    return false;
  }
  is_http_ = true;
  const std::string bytes = std::exchange(sniffed_, "");
  return Gate(bytes);
}

// Dials with the first whole request.
bool ProxyConnection::Gate(std::string_view bytes) {
  const absl::Status passed = gate_.Feed(bytes, &out_.bytes);
  if (!passed.ok()) {
    const bool by_name = passed.code() == absl::StatusCode::kPermissionDenied;
    Refuse(by_name ? "name" : "protocol", gate_.host(),
           state_ == State::kSniffing ? kHttpRefusal : "");
    return false;
  }
  if (state_ == State::kSniffing && !out_.bytes.empty()) return Dial(gate_.host());
  return true;
}

bool ProxyConnection::Dial(const std::string& name) {
  policy_.events.Note({true, "name", "tcp", Ipv4Text(address_), port_, name}, absl::Now());
  state_ = State::kConnecting;
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port_);
  to.sin_addr.s_addr = htonl(address_);
  far_.reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!far_ || (connect(far_.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) != 0 &&
                errno != EINPROGRESS)) {
    End();
    return false;
  }
  const int on = 1;
  setsockopt(far_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  loop_.CancelTimer(timer_);
  timer_ = loop_.AddTimer(kConnectTimeout, [this] { OnTimer(); });
  return true;
}

void ProxyConnection::OnFar(uint32_t ready) {
  active_at_ = MonotonicTime();
  if (state_ == State::kConnecting) {
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(far_.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0 || error != 0) {
      policy_.events.Note({false, "connect", "tcp", Ipv4Text(address_), port_, ""}, absl::Now());
      return End();
    }
    state_ = State::kCarrying;
    loop_.CancelTimer(timer_);
    timer_ = loop_.AddTimer(kIdleTimeout, [this] { OnTimer(); });
    ready |= EventLoop::kWritable;
  }
  if ((ready & EventLoop::kWritable) != 0 && !Write(far_.get(), &out_)) return;
  if ((ready & (EventLoop::kReadable | EventLoop::kError)) != 0 && !ReadFar()) return;
  Watch();
}

bool ProxyConnection::ReadFar() {
  if (in_.read_ended || in_.bytes.size() >= kMaxHeldBytes) return true;
  std::array<char, kReadBytes> bytes;
  const ssize_t count = recv(far_.get(), bytes.data(), bytes.size(), 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (count < 0) {
    End();
    return false;
  }
  if (count == 0)
    in_.read_ended = true;
  else
    in_.bytes.append(bytes.data(), static_cast<size_t>(count));
  return Write(guest_.get(), &in_);
}

// Writes what it can; tells the end on once all is written.
bool ProxyConnection::Write(int fd, Flow* flow) {
  while (!flow->bytes.empty()) {
    const ssize_t count = send(fd, flow->bytes.data(), flow->bytes.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) break;
    if (count < 0) {
      End();
      return false;
    }
    flow->bytes.erase(0, static_cast<size_t>(count));
  }
  if (flow->bytes.empty() && flow->read_ended && !flow->write_ended) {
    flow->write_ended = true;
    shutdown(fd, SHUT_WR);
  }
  if (out_.write_ended && in_.write_ended) {
    End();
    return false;
  }
  return true;
}

// Asks the loop for what each side can go on with; no more is read than is held.
bool ProxyConnection::Watch() {
  if (state_ == State::kEnded) return false;
  uint32_t guest = 0, far = 0;
  if (!out_.read_ended && state_ != State::kConnecting && out_.bytes.size() < kMaxHeldBytes)
    guest |= EventLoop::kReadable;
  if (!in_.bytes.empty()) guest |= EventLoop::kWritable;
  if (state_ == State::kConnecting || !out_.bytes.empty()) far |= EventLoop::kWritable;
  if (state_ == State::kCarrying && !in_.read_ended && in_.bytes.size() < kMaxHeldBytes)
    far |= EventLoop::kReadable;
  const auto watch = [this](int fd, uint32_t wanted, uint32_t* now, auto handler) {
    if (wanted == *now) return true;
    *now = wanted;
    // A side that is only waited for must not wake us with its hang-up again and again.
    if (wanted == 0) {
      loop_.UnwatchFd(fd);
      return true;
    }
    return loop_.WatchFd(fd, wanted, handler).ok();
  };
  const bool watched =
      watch(guest_.get(), guest, &guest_interest_, [this](uint32_t ready) { OnGuest(ready); }) &&
      (!far_ || watch(far_.get(), far, &far_interest_, [this](uint32_t ready) { OnFar(ready); }));
  if (!watched) End();
  return watched;
}

void ProxyConnection::Refuse(const char* rule, const std::string& name,
                             std::string_view last_words) {
  policy_.events.Note({false, rule, "tcp", Ipv4Text(address_), port_, name}, absl::Now());
  if (!last_words.empty()) {
    [[maybe_unused]] const ssize_t ignored =
        send(guest_.get(), last_words.data(), last_words.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(guest_.get(), SHUT_WR);
  } else {
    const linger at_once{1, 0};  // a reset: the guest learns of it now
    setsockopt(guest_.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  }
  End();
}

void ProxyConnection::End() {
  if (state_ == State::kEnded) return;
  state_ = State::kEnded;
  loop_.CancelTimer(timer_);
  timer_ = 0;
  loop_.UnwatchFd(guest_.get());
  guest_.reset();
  if (far_) loop_.UnwatchFd(far_.get());
  far_.reset();
  on_end_();
}

}  // namespace bunker::agent
