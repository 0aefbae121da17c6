#include "agent/net/transit_rules.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr size_t kMaxDeviceName = 15;

// The sets fold what was refused into one element each, which the agent reads (rule_events). A full
// one must not let anything pass, so that each drop is a rule of its own.
constexpr char kWithoutOld[] = R"(table bridge bunker_transit
delete table bridge bunker_transit
)";
constexpr char kBegin[] = R"(table bridge bunker_transit {
  set refused_mac {
    typeof ether saddr; size 64; flags dynamic,timeout; timeout 10m; counter;
  }
  set refused_arp {
    typeof arp saddr ip; size 64; flags dynamic,timeout; timeout 10m; counter;
  }
  set refused_source {
    typeof ip saddr . ip daddr . meta l4proto
    size 256; flags dynamic,timeout; timeout 10m; counter;
  }
  set refused_type {
    typeof ether type; size 64; flags dynamic,timeout; timeout 10m; counter;
  }
  set refused_dhcp {
    typeof ip daddr; size 16; flags dynamic,timeout; timeout 10m; counter;
  }
  chain other_mac {
    update @refused_mac { ether saddr }
    drop
  }
  chain other_arp {
    update @refused_arp { arp saddr ip }
    drop
  }
  chain other_source {
    update @refused_source { ip saddr . ip daddr . meta l4proto }
    drop
  }
  chain other_type {
    update @refused_type { ether type }
    drop
  }
  chain dhcp_server {
    update @refused_dhcp { ip daddr }
    drop
  }
)";

// "ether type" is the frame's own word: a VLAN tag comes before what it wraps.
constexpr char kGuarded[] = R"(  chain from_card$N {
    ether saddr != $MAC goto other_mac
    ether type arp goto arp_of_card$N
    ether type != ip goto other_type
$IP  }
  chain arp_of_card$N {
$ARP    goto other_arp
  }
  chain to_card$N {
    ether daddr != $MAC ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 drop
    ether type { ip, arp } accept
    drop
  }
)";
constexpr char kGuardedIp[] = R"(    ip saddr != $ADDRESS goto other_source
    udp sport 67 goto dhcp_server
    accept
)";
constexpr char kGuardedArp[] = R"(    arp htype 1 arp ptype ip arp hlen 6 arp plen 4)"
                               R"( arp saddr ether $MAC arp saddr ip $ADDRESS accept
)";
constexpr char kNoIp[] = "    goto other_source\n";

constexpr char kOpen[] = R"(  chain from_card$N {
    accept
  }
  chain to_card$N {
    accept
  }
)";

constexpr char kPasses[] = R"(    iifname "$TAP" goto from_card$N
    iifname "$PORT" goto to_card$N
)";

constexpr char kEnd[] = R"(  chain pass {
    type filter hook prerouting priority -300; policy drop;
$PASSES  }
  chain here {
    type filter hook input priority 0; policy drop;
  }
  chain own {
    type filter hook output priority 0; policy drop;
  }
}
)";

absl::Status Wrong(size_t card, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("interface ", card, " ", what));
}

}  // namespace

absl::StatusOr<std::string> ParseMac(std::string_view text) {
  std::string mac = absl::AsciiStrToLower(std::string(text));
  bool good = mac.size() == 17;
  for (size_t i = 0; good && i < mac.size(); ++i)
    good = i % 3 == 2 ? mac[i] == ':' : absl::ascii_isxdigit(static_cast<unsigned char>(mac[i]));
  if (!good) return absl::InvalidArgumentError("is no MAC address");
  const int low = mac[1] <= '9' ? mac[1] - '0' : mac[1] - 'a' + 10;
  if ((low & 1) != 0 || mac == "00:00:00:00:00:00")
    return absl::InvalidArgumentError("is no MAC address of one card");
  return mac;
}

bool IsDeviceName(std::string_view name) {
  if (name.empty() || name.size() > kMaxDeviceName || name == "." || name == "..") return false;
  return std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
  });
}

absl::StatusOr<std::vector<CardRules>> ParseCards(const std::vector<TransitCard>& cards) {
  if (cards.size() > kMaxTransitCards)
    return absl::InvalidArgumentError(absl::StrCat("more than ", kMaxTransitCards, " interfaces"));
  std::vector<CardRules> rules;
  for (size_t i = 0; i < cards.size(); ++i) {
    const TransitCard& card = cards[i];
    if (!IsDeviceName(card.bridge)) return Wrong(i, "names no bridge");
    CardRules out;
    out.guarded = card.spoof_guard;
    const auto mac = ParseMac(card.mac);
    if (!mac.ok()) return Wrong(i, absl::StrCat("has a mac that ", mac.status().message()));
    out.mac = *mac;
    if (!card.ipv4.empty()) {
      const auto address = ParseIpv4(card.ipv4.substr(0, card.ipv4.find('/')));
      if (!address.ok()) return Wrong(i, "has an ipv4 that is none");
      out.address = *address;
    }
    rules.push_back(std::move(out));
  }
  return rules;
}

std::string TransitTapName(size_t card) {
  return absl::StrCat("tap", card);
}
std::string TransitPortName(size_t card) {
  return absl::StrCat(kTransitPortPrefix, card);
}
std::string TransitLanName(size_t card) {
  return absl::StrCat("lan", card);
}
std::string TransitHostName(uint32_t slot, size_t card) {
  return absl::StrCat("bkt", slot, std::string(1, static_cast<char>('a' + card)));
}

std::string TransitRuleset(const std::vector<CardRules>& cards, bool is_first) {
  std::string text = absl::StrCat(is_first ? "" : kWithoutOld, kBegin), passes;
  for (size_t i = 0; i < cards.size(); ++i) {
    const CardRules& card = cards[i];
    const bool has_ip = card.address.has_value();
    std::string chains = card.guarded ? absl::StrReplaceAll(kGuarded, {{"$IP", has_ip ? kGuardedIp
                                                                                      : kNoIp},
                                                                       {"$ARP", has_ip ? kGuardedArp
                                                                                       : ""}})
                                      : kOpen;
    absl::StrReplaceAll({{"$N", absl::StrCat(i)},
                         {"$MAC", card.mac},
                         {"$ADDRESS", has_ip ? Ipv4Text(*card.address) : ""}},
                        &chains);
    text += chains;
    passes += absl::StrReplaceAll(kPasses, {{"$N", absl::StrCat(i)},
                                            {"$TAP", TransitTapName(i)},
                                            {"$PORT", TransitPortName(i)}});
  }
  return text + absl::StrReplaceAll(kEnd, {{"$PASSES", passes}});
}

}  // namespace bunker::agent
