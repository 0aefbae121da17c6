#include "common/http/address_filter.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>

#include <array>
#include <cstdint>
#include <cstring>

namespace bunker::http {
namespace {
using V6 = std::array<uint8_t, 16>;

bool IsOwnV4(uint32_t address) {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return true;  // cannot tell: refuse
  bool own = false;
  for (const ifaddrs* entry = list; entry != nullptr && !own; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != AF_INET) continue;
    sockaddr_in in;
    std::memcpy(&in, entry->ifa_addr, sizeof in);
    own = ntohl(in.sin_addr.s_addr) == address;
  }
  ::freeifaddrs(list);
  return own;
}

bool IsOwnV6(const V6& address) {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return true;
  bool own = false;
  for (const ifaddrs* entry = list; entry != nullptr && !own; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != AF_INET6) continue;
    sockaddr_in6 in;
    std::memcpy(&in, entry->ifa_addr, sizeof in);
    own = std::memcmp(in.sin6_addr.s6_addr, address.data(), address.size()) == 0;
  }
  ::freeifaddrs(list);
  return own;
}

constexpr uint32_t Ip(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  return a << 24 | b << 16 | c << 8 | d;
}

std::string RefusalOfV4(uint32_t address) {
  if (address >> 24 == 127) return "a loopback address";
  if (address >> 24 == 0) return "an unspecified address";  // the kernel connects 0.0.0.0 to itself
  if (address == Ip(169, 254, 169, 254) || address == Ip(100, 100, 100, 200) ||
      address == Ip(168, 63, 129, 16) || address == Ip(192, 0, 0, 192))
    return "a cloud metadata address";
  if (address >> 16 == Ip(0, 0, 169, 254)) return "a link-local address";
  if (address >> 28 == 14) return "a multicast address";
  if (address == 0xffffffff) return "a broadcast address";
  if (IsOwnV4(address)) return "an address of this host";
  return "";
}

std::string RefusalOfV6(const V6& a) {
  const auto starts = [&](std::initializer_list<uint8_t> prefix) {
    return std::memcmp(a.data(), prefix.begin(), prefix.size()) == 0;
  };
  const auto v4_at = [&](size_t i) { return Ip(a[i], a[i + 1], a[i + 2], a[i + 3]); };
  static constexpr V6 kLoopback = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  static constexpr V6 kAwsMetadata = {0xfd, 0, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x54};
  static constexpr V6 kGceMetadata = {0xfd, 0x20, 0, 0xce, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x54};
  if (a == V6{}) return "an unspecified address";
  if (a == kLoopback) return "a loopback address";
  if (a == kAwsMetadata || a == kGceMetadata) return "a cloud metadata address";
  if (starts({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff})) return RefusalOfV4(v4_at(12));
  if (starts({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})) return RefusalOfV4(v4_at(12));
  if (starts({0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0})) return RefusalOfV4(v4_at(12));
  if (starts({0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0})) return RefusalOfV4(v4_at(12));
  if (starts({0, 0x64, 0xff, 0x9b, 0, 1})) return RefusalOfV4(v4_at(12));
  if (starts({0x20, 0x02})) return RefusalOfV4(v4_at(2));
  if (starts({0x20, 0x01, 0, 0})) return RefusalOfV4(~v4_at(12));  // Teredo hides it inverted
  if (a[0] == 0xfe && (a[1] & 0xc0) == 0x80) return "a link-local address";
  if (a[0] == 0xff) return "a multicast address";
  if (IsOwnV6(a)) return "an address of this host";
  return "";
}

// "localhost." is the same name, written in full.
std::string_view WithoutDot(std::string_view name) {
  if (!name.empty() && name.back() == '.') name.remove_suffix(1);
  return name;
}
}  // namespace

std::string RefusalOf(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    sockaddr_in in;
    std::memcpy(&in, address, sizeof in);
    return RefusalOfV4(ntohl(in.sin_addr.s_addr));
  }
  if (address->sa_family == AF_INET6) {
    sockaddr_in6 in;
    std::memcpy(&in, address, sizeof in);
    V6 bytes;
    std::memcpy(bytes.data(), in.sin6_addr.s6_addr, bytes.size());
    return RefusalOfV6(bytes);
  }
  return "not an IP address";
}

std::string RefusalOfHost(std::string_view bare_host) {
  const std::string host(bare_host);
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  if (::inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1)
    return RefusalOf(reinterpret_cast<const sockaddr*>(&v4));
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  if (::inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1)
    return RefusalOf(reinterpret_cast<const sockaddr*>(&v6));
  if (IsLoopbackHost(bare_host)) return "a loopback address";
  // Of use behind a proxy alone, where no address of it is seen.
  return WithoutDot(bare_host) == "metadata.google.internal" ? "a cloud metadata address" : "";
}

bool IsLoopbackHost(std::string_view bare_host) {
  const std::string_view name = WithoutDot(bare_host);
  if (name == "localhost" || name.ends_with(".localhost") || name == "::1") return true;
  in_addr v4;
  return ::inet_pton(AF_INET, std::string(bare_host).c_str(), &v4) == 1 &&
         ntohl(v4.s_addr) >> 24 == 127;
}

std::string AddressText(const sockaddr* address) {
  char text[INET6_ADDRSTRLEN] = "?";
  if (address->sa_family == AF_INET) {
    sockaddr_in in;
    std::memcpy(&in, address, sizeof in);
    ::inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
  } else if (address->sa_family == AF_INET6) {
    sockaddr_in6 in;
    std::memcpy(&in, address, sizeof in);
    ::inet_ntop(AF_INET6, &in.sin6_addr, text, sizeof text);
  }
  return text;
}

}  // namespace bunker::http
