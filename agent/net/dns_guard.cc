#include "agent/net/dns_guard.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "common/base/reason.h"
#include "common/proc/deadline.h"

namespace bunker::agent {
namespace {

constexpr size_t kMaxAsking = 64;
constexpr double kQuestionsPerSecond = 50;
constexpr double kQuestionBurst = 200;
constexpr int kDatagramsAtOnce = 32;
constexpr absl::Duration kReplyTimeout = absl::Seconds(2);
constexpr size_t kMaxAttempts = 3;
// A guest may keep an answer for so long at most, and may use it a little longer than it was told:
// programs connect some time after they have asked.
constexpr uint32_t kMinTtlS = 5;
constexpr uint32_t kMaxTtlS = 300;
constexpr absl::Duration kGrace = absl::Seconds(30);
constexpr uint16_t kDnsPort = 53;
constexpr size_t kMaxAnswers = 16;  // so that an answer fits 512 bytes

}  // namespace

DnsGuard::DnsGuard(EventLoop& loop, GuardPolicy& policy, int socket)
    : loop_(loop),
      policy_(policy),
      socket_(socket),
      turns_(kQuestionBurst),
      turns_at_(MonotonicTime()) {}

DnsGuard::~DnsGuard() {
  while (!asking_.empty()) Drop(asking_.begin()->first);
  loop_.UnwatchFd(socket_);
}

absl::Status DnsGuard::Start() {
  return loop_.WatchFd(socket_, EventLoop::kReadable, [this](uint32_t) { OnReadable(); });
}

bool DnsGuard::TakeTurn() {
  const absl::Duration now = MonotonicTime();
  turns_ = std::min(kQuestionBurst,
                    turns_ + absl::ToDoubleSeconds(now - turns_at_) * kQuestionsPerSecond);
  turns_at_ = now;
  if (turns_ < 1) return false;
  turns_ -= 1;
  return true;
}

void DnsGuard::OnReadable() {
  std::array<char, kMaxDnsBytes> bytes;
  for (int i = 0; i < kDatagramsAtOnce; ++i) {
    sockaddr_in guest{};
    socklen_t length = sizeof guest;
    const ssize_t count = recvfrom(socket_, bytes.data(), bytes.size(), MSG_DONTWAIT,
                                   reinterpret_cast<sockaddr*>(&guest), &length);
    if (count < 0) return;
    if (!TakeTurn()) {
      policy_.events.Note({false, "rate", "udp", "", kDnsPort, ""}, absl::Now());
      continue;
    }
    OnQuestion({bytes.data(), static_cast<size_t>(count)}, guest);
  }
}

void DnsGuard::OnQuestion(std::string_view bytes, const sockaddr_in& guest) {
  absl::StatusOr<DnsQuestion> question = ParseDnsQuery(bytes);
  if (!question.ok()) return;
  if (question->name.empty() || !policy_.MayResolve(question->name)) {
    policy_.events.Note({false, "dns", "udp", "", kDnsPort, question->name}, absl::Now());
    return Answer(*question, guest, kDnsNoSuchName, {});
  }
  const bool addresses = question->type == kDnsTypeA;
  // No IPv6 leaves a bunker, and what an HTTPS record says may hold addresses: there are none.
  if (!addresses &&
      (!policy_.any_name || question->type == kDnsTypeAaaa || question->type == kDnsTypeHttps))
    return Answer(*question, guest, kDnsNoError, {});
  if (asking_.size() >= kMaxAsking || policy_.resolvers.empty())
    return Answer(*question, guest, kDnsServerFailure, {});
  const uint64_t serial = next_serial_++;
  Asking& asking = asking_[serial];
  asking.id = static_cast<uint16_t>(rng_.Below(65536));
  asking.relayed = !addresses;
  asking.query = addresses ? BuildDnsQuery(asking.id, question->name) : std::string(bytes);
  asking.query[0] = static_cast<char>(asking.id >> 8);
  asking.query[1] = static_cast<char>(asking.id & 255);
  asking.question = *std::move(question);
  asking.guest = guest;
  Ask(serial);
}

// A socket of its own for each try: its port is as hard to guess as its id.
void DnsGuard::Ask(uint64_t serial) {
  Asking& asking = asking_.at(serial);
  if (asking.socket) loop_.UnwatchFd(asking.socket.get());
  loop_.CancelTimer(asking.timer);
  asking.timer = 0;
  if (asking.attempt >= kMaxAttempts) return Fail(serial);
  const Ipv4 resolver = policy_.resolvers[asking.attempt++ % policy_.resolvers.size()];
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(kDnsPort);
  to.sin_addr.s_addr = htonl(resolver);
  asking.socket.reset(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int fd = asking.socket.get();
  if (fd < 0 || connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0 ||
      send(fd, asking.query.data(), asking.query.size(), MSG_NOSIGNAL) < 0 ||
      !loop_.WatchFd(fd, EventLoop::kReadable, [this, serial](uint32_t) { OnReply(serial); }).ok())
    return Fail(serial);
  asking.timer = loop_.AddTimer(kReplyTimeout, [this, serial] {
    asking_.at(serial).timer = 0;
    Ask(serial);
  });
}

void DnsGuard::OnReply(uint64_t serial) {
  Asking& asking = asking_.at(serial);
  std::array<char, kMaxDnsBytes> bytes;
  const ssize_t count = recv(asking.socket.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (count < 0 && errno == EAGAIN) return;
  if (count < 0) return Ask(serial);  // refused there: the next one
  const std::string_view text(bytes.data(), static_cast<size_t>(count));
  if (asking.relayed) {
    if (text.size() < 12 || text.substr(0, 2) != asking.query.substr(0, 2)) return;
    std::string answer(text);
    answer[0] = static_cast<char>(asking.question.id >> 8);
    answer[1] = static_cast<char>(asking.question.id & 255);
    Send(answer, asking.guest);
    return Drop(serial);
  }
  const absl::StatusOr<DnsReply> reply = ParseDnsReply(text, asking.id, asking.question.name);
  if (reply.ok()) Finish(serial, *reply);
}

void DnsGuard::Finish(uint64_t serial, const DnsReply& reply) {
  const Asking& asking = asking_.at(serial);
  const std::string& name = asking.question.name;
  if (reply.rcode != kDnsNoError && reply.rcode != kDnsNoSuchName) return Ask(serial);
  std::vector<DnsAddress> addresses;
  const absl::Time at = absl::Now();
  for (DnsAddress address : reply.addresses) {
    if (!policy_.MayHandOut(address.address, name)) {
      policy_.events.Note({false, "address", "udp", Ipv4Text(address.address), kDnsPort, name}, at);
      continue;
    }
    if (addresses.size() == kMaxAnswers) break;
    address.ttl_s = std::clamp(address.ttl_s, kMinTtlS, kMaxTtlS);
    policy_.handed_out.Add(address.address, name,
                           MonotonicTime() + absl::Seconds(address.ttl_s) + kGrace);
    addresses.push_back(address);
  }
  const bool all_refused = addresses.empty() && !reply.addresses.empty();
  if (!all_refused) policy_.events.Note({true, "dns", "udp", "", kDnsPort, name}, at);
  Answer(asking.question, asking.guest, all_refused ? kDnsNoSuchName : reply.rcode, addresses);
  Drop(serial);
}

void DnsGuard::Fail(uint64_t serial) {
  const Asking& asking = asking_.at(serial);
  Answer(asking.question, asking.guest, kDnsServerFailure, {});
  Drop(serial);
}

void DnsGuard::Drop(uint64_t serial) {
  Asking& asking = asking_.at(serial);
  loop_.CancelTimer(asking.timer);
  if (asking.socket) loop_.UnwatchFd(asking.socket.get());
  asking_.erase(serial);
}

void DnsGuard::Answer(const DnsQuestion& question, const sockaddr_in& guest, int rcode,
                      const std::vector<DnsAddress>& addresses) {
  Send(BuildDnsAnswer(question, rcode, addresses), guest);
}

// A guest that does not take its answers loses them.
void DnsGuard::Send(std::string_view bytes, const sockaddr_in& guest) {
  [[maybe_unused]] const ssize_t ignored =
      sendto(socket_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
             reinterpret_cast<const sockaddr*>(&guest), sizeof guest);
}

}  // namespace bunker::agent
