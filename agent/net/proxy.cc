#include "agent/net/proxy.h"

#include <arpa/inet.h>
#include <linux/netfilter_ipv4.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <utility>

namespace bunker::agent {
namespace {

constexpr size_t kMaxConnections = 256;
constexpr int kAcceptsAtOnce = 32;

}  // namespace

Proxy::Proxy(EventLoop& loop, GuardPolicy& policy, int listener)
    : loop_(loop), policy_(policy), listener_(listener) {}

Proxy::~Proxy() {
  loop_.UnwatchFd(listener_);
}

absl::Status Proxy::Start() {
  return loop_.WatchFd(listener_, EventLoop::kReadable, [this](uint32_t) { OnReadable(); });
}

void Proxy::OnReadable() {
  for (int i = 0; i < kAcceptsAtOnce; ++i) {
    UniqueFd guest(accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!guest) return;
    sockaddr_in wanted{};
    socklen_t length = sizeof wanted;
    if (getsockopt(guest.get(), SOL_IP, SO_ORIGINAL_DST, &wanted, &length) != 0) continue;
    const Ipv4 address = ntohl(wanted.sin_addr.s_addr);
    const uint16_t port = ntohs(wanted.sin_port);
    if (connections_.size() >= kMaxConnections) {
      policy_.events.Note({false, "connections", "tcp", Ipv4Text(address), port, ""}, absl::Now());
      continue;
    }
    const uint64_t serial = next_serial_++;
    auto connection = std::make_unique<ProxyConnection>(
        loop_, policy_, std::move(guest), address, port, [this, serial] {
          // Not from within itself.
          loop_.Post([this, serial] { connections_.erase(serial); });
        });
    connection->Start();
    connections_.emplace(serial, std::move(connection));
  }
}

}  // namespace bunker::agent
