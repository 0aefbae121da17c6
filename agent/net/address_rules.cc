#include "agent/net/address_rules.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

Ipv4 MaskOf(int bits) {
  return bits == 0 ? 0 : ~Ipv4{0} << (32 - bits);
}

}  // namespace

bool Ipv4Range::Holds(Ipv4 address) const {
  return (address & MaskOf(bits)) == first;
}

absl::StatusOr<Ipv4> ParseIpv4(std::string_view text) {
  in_addr parsed{};
  if (inet_pton(AF_INET, std::string(text).c_str(), &parsed) != 1)
    return absl::InvalidArgumentError("'" + std::string(text) + "' is no IPv4 address");
  return ntohl(parsed.s_addr);
}

absl::StatusOr<Ipv4Range> ParseRange(std::string_view text) {
  const size_t slash = text.find('/');
  Ipv4Range range;
  ASSIGN_OR_RETURN(range.first, ParseIpv4(text.substr(0, slash)));
  if (slash == std::string_view::npos) return range;
  int bits = 0;
  const std::string_view digits = text.substr(slash + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), bits);
  if (error != std::errc() || end != digits.data() + digits.size() || bits < 0 || bits > 32) {
    return absl::InvalidArgumentError("'" + std::string(text) +
                                      "' has no prefix length of 0 to 32");
  }
  if ((range.first & ~MaskOf(bits)) != 0) {
    return absl::InvalidArgumentError("'" + std::string(text) +
                                      "' has bits set below its mask: write " +
                                      RangeText({range.first & MaskOf(bits), bits}));
  }
  range.bits = bits;
  return range;
}

std::string Ipv4Text(Ipv4 address) {
  return absl::StrCat(address >> 24, ".", (address >> 16) & 255, ".", (address >> 8) & 255, ".",
                      address & 255);
}

std::string RangeText(const Ipv4Range& range) {
  return absl::StrCat(Ipv4Text(range.first), "/", range.bits);
}

const std::vector<std::string>& DefaultRefusedRanges() {
  static const auto* const kRanges = new std::vector<std::string>{
      "0.0.0.0/8",      "10.0.0.0/8",    "100.64.0.0/10",   "127.0.0.0/8",    "168.63.129.16/32",
      "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",    "192.0.2.0/24",   "192.88.99.0/24",
      "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"};
  return *kRanges;
}

bool AddressRules::Refuses(Ipv4 address) const {
  const auto holds = [address](const Ipv4Range& range) { return range.Holds(address); };
  if (std::any_of(exempt_.begin(), exempt_.end(), holds)) return false;
  return std::any_of(refused_.begin(), refused_.end(), holds);
}

}  // namespace bunker::agent
