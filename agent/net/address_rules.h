// IPv4 ranges: which addresses no bunker may reach, and the operator's exceptions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bunker::agent {

using Ipv4 = uint32_t;  // host byte order

struct Ipv4Range {
  Ipv4 first = 0;
  int bits = 32;
  bool Holds(Ipv4 address) const;
};

// "192.0.2.1"; nothing else is an address here.
absl::StatusOr<Ipv4> ParseIpv4(std::string_view text);
// "192.0.2.0/24" or an address; bits below the mask must be zero.
absl::StatusOr<Ipv4Range> ParseRange(std::string_view text);
std::string Ipv4Text(Ipv4 address);
std::string RangeText(const Ipv4Range& range);

// What `egress_deny` is where the operator says nothing: this network, private, shared, loopback,
// link-local with the clouds' metadata services, reserved, test and multicast ranges.
const std::vector<std::string>& DefaultRefusedRanges();

// Immutable, thread-safe.
class AddressRules {
 public:
  AddressRules() = default;
  AddressRules(std::vector<Ipv4Range> refused, std::vector<Ipv4Range> exempt)
      : refused_(std::move(refused)), exempt_(std::move(exempt)) {}

  bool Refuses(Ipv4 address) const;

 private:
  std::vector<Ipv4Range> refused_;
  std::vector<Ipv4Range> exempt_;
};

}  // namespace bunker::agent
