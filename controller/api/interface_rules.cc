#include "controller/api/interface_rules.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "controller/api/errors.h"

namespace bunker::controller {
namespace {

constexpr size_t kMaxDeviceName = 15;  // Linux: IFNAMSIZ with its NUL is 16
constexpr size_t kMacLength = 17;

std::optional<uint32_t> ParseAddress(const std::string& text) {
  in_addr address{};
  if (text.size() > 15 || inet_pton(AF_INET, text.c_str(), &address) != 1) return std::nullopt;
  return ntohl(address.s_addr);
}

std::string AddressText(uint32_t address) {
  return fmt::format("{}.{}.{}.{}", address >> 24, (address >> 16) & 255, (address >> 8) & 255,
                     address & 255);
}

struct Subnet {
  uint32_t address = 0;
  uint32_t bits = 0;

  uint32_t mask() const { return ~uint32_t{0} << (32 - bits); }  // bits ≥ 1
  bool Holds(uint32_t other) const { return (other & mask()) == (address & mask()); }
  // One that a host can have: neither the network's own nor the broadcast address.
  bool IsHost(uint32_t other) const {
    return bits >= 31 || ((other & ~mask()) != 0 && (other | mask()) != ~uint32_t{0});
  }
};

std::optional<Subnet> ParseSubnet(const std::string& text) {
  const size_t slash = text.find('/');
  if (slash == std::string::npos) return std::nullopt;
  const std::string bits = text.substr(slash + 1);
  const auto address = ParseAddress(text.substr(0, slash));
  Subnet subnet;
  const bool digits = !bits.empty() && bits.size() <= 2 && bits[0] != '0' &&
                      std::all_of(bits.begin(), bits.end(), absl::ascii_isdigit);
  if (!address || !digits || !absl::SimpleAtoi(bits, &subnet.bits) || subnet.bits > 32)
    return std::nullopt;
  subnet.address = *address;
  return subnet;
}

// "02:00:5e:10:00:01", in either case.
bool IsMac(std::string_view text) {
  if (text.size() != kMacLength) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (i % 3 == 2 ? text[i] != ':' : !absl::ascii_isxdigit(static_cast<unsigned char>(text[i])))
      return false;
  }
  return true;
}

void CheckMac(const std::string& field, const std::string& mac, Validator* v) {
  if (!IsMac(mac))
    return v->Refuse(field, "takes six pairs of hex digits such as 02:00:5e:10:00:01");
  // The lowest bit of the first byte.
  const char low = absl::ascii_tolower(static_cast<unsigned char>(mac[1]));
  if (((low <= '9' ? low - '0' : low - 'a' + 10) & 1) != 0)
    return v->Refuse(field, "is a multicast address: the first byte must be even");
  if (mac == "00:00:00:00:00:00") v->Refuse(field, "is no address of a card; leave it out");
}

void CheckAddress(const std::string& path, const v1::Interface& interface, Validator* v) {
  if (!interface.has_ipv4()) {
    if (interface.has_gateway()) v->Refuse(path + ".gateway", "needs an ipv4; send one");
    return;
  }
  const auto subnet = ParseSubnet(interface.ipv4());
  if (!subnet)
    return v->Refuse(path + ".ipv4", "takes an address with its prefix such as 192.0.2.5/24");
  const uint32_t first = subnet->address >> 24;
  if (first == 0 || first == 127 || first >= 224 || !subnet->IsHost(subnet->address))
    return v->Refuse(path + ".ipv4", "is no address that a host can have; choose another");
  if (!interface.has_gateway()) return;
  const auto gateway = ParseAddress(interface.gateway());
  if (!gateway || !subnet->Holds(*gateway) || !subnet->IsHost(*gateway) ||
      *gateway == subnet->address)
    v->Refuse(path + ".gateway", fmt::format("takes the address of another host in {}",
                                             interface.ipv4()));
}

bool IsInterfaceName(std::string_view name) {
  // Linux keeps settings under the last two, as if they were devices.
  return IsDeviceName(name) && absl::ascii_isalpha(static_cast<unsigned char>(name[0])) &&
         name != "lo" && name != "all" && name != "default";
}

}  // namespace

bool IsDeviceName(std::string_view name) {
  if (name.empty() || name.size() > kMaxDeviceName || name == "." || name == "..") return false;
  return std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
  });
}

absl::Status CheckInterfacesFit(const v1::BunkerSpec& spec) {
  const bool transit = spec.network_profile() == v1::NETWORK_PROFILE_TRANSIT;
  if (!transit && spec.interfaces_size() > 0)
    return ApiError("INTERFACES_NOT_ALLOWED",
                    "interfaces belong to network_profile transit alone; leave them out");
  if (transit && spec.interfaces_size() == 0)
    return ApiError("TRANSIT_MISSING_INTERFACES",
                    "network_profile transit needs interfaces; name at least one, with if_name and "
                    "bridge_name");
  return absl::OkStatus();
}

void ValidateInterfaces(const v1::BunkerSpec& spec, Validator* v) {
  if (spec.interfaces_size() > kMaxInterfaces)
    return v->Refuse("interfaces", fmt::format("a bunker has at most {}", kMaxInterfaces));
  std::set<std::string> names, macs, addresses;
  for (int i = 0; i < spec.interfaces_size(); ++i) {
    const v1::Interface& interface = spec.interfaces(i);
    const std::string path = fmt::format("interfaces[{}]", i);
    if (!IsInterfaceName(interface.if_name()))
      v->Refuse(path + ".if_name", "takes 1 to 15 letters, digits, dots, dashes or underscores, "
                                   "the first a letter; not lo, all or default");
    if (!names.insert(interface.if_name()).second)
      v->Refuse(path + ".if_name", "is another interface's too; choose another name");
    if (!IsDeviceName(interface.bridge_name()))
      v->Refuse(path + ".bridge_name", "takes the name of a registered bridge");
    if (interface.has_mac()) {
      CheckMac(path + ".mac", interface.mac(), v);
      if (!macs.insert(absl::AsciiStrToLower(interface.mac())).second)
        v->Refuse(path + ".mac", "is another interface's too; leave it out");
    }
    CheckAddress(path, interface, v);
    const std::string address = interface.ipv4().substr(0, interface.ipv4().find('/'));
    if (interface.has_ipv4() && !addresses.insert(address).second)
      v->Refuse(path + ".ipv4", "is another interface's too; choose another");
  }
}

std::vector<BunkerInterface> InterfacesOf(const v1::BunkerSpec& spec) {
  std::vector<BunkerInterface> all;
  for (const v1::Interface& from : spec.interfaces()) {
    BunkerInterface to;
    to.if_name = from.if_name();
    to.bridge_name = from.bridge_name();
    to.spoof_guard = !from.has_spoof_guard() || from.spoof_guard();
    to.mac = absl::AsciiStrToLower(from.mac());
    // Written anew from what was read: nothing of the text itself goes on.
    if (const auto subnet = ParseSubnet(from.ipv4()))
      to.ipv4 = fmt::format("{}/{}", AddressText(subnet->address), subnet->bits);
    if (const auto gateway = ParseAddress(from.gateway())) to.gateway = AddressText(*gateway);
    all.push_back(std::move(to));
  }
  return all;
}

}  // namespace bunker::controller
