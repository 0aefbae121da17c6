#include "agent/net/ruleset.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

namespace bunker::agent {
namespace {

// Frames: the guest's one MAC and address, IPv4 and ARP alone. No IPv6, no VLAN, no DHCP. What a
// shaped link redirects passes this table by, so that the next one asks the same.
constexpr char kLink[] = R"(table netdev bunker_link {
  chain from_guest {
    type filter hook ingress device "$TAP" priority -500; policy drop;
    ether saddr != $MAC drop
    ether type arp arp saddr ether $MAC arp saddr ip $GUEST accept
    ether type ip ip saddr $GUEST accept
  }
}
)";

// In the same transaction; a table is named first, for one that isn't there can't be deleted.
constexpr char kWithoutOld[] = R"(table netdev bunker_link
delete table netdev bunker_link
table inet bunker
delete table inet bunker
)";

// `refused` and `allowed` fold what happened into one element each, which the agent reads.
constexpr char kInetBegin[] = R"(table inet bunker {
  set refused {
    typeof ip daddr . meta l4proto . th dport
    size 256; flags dynamic,timeout; timeout 10m; counter;
  }
  set refused_other {
    typeof ip daddr . meta l4proto
    size 64; flags dynamic,timeout; timeout 10m; counter;
  }
  set allowed {
    typeof ip daddr . meta l4proto . th dport
    size 256; flags dynamic,timeout; timeout 10m; counter;
  }
  set closed { type ipv4_addr; flags interval; auto-merge;$CLOSED }
  set exempt { type ipv4_addr; flags interval; auto-merge;$EXEMPT }
  chain refuse {
    meta l4proto { tcp, udp } update @refused { ip daddr . meta l4proto . th dport }
    meta l4proto != { tcp, udp } update @refused_other { ip daddr . meta l4proto }
    limit rate over 100/second drop
    meta l4proto tcp reject with tcp reset
    reject with icmp type admin-prohibited
  }
  chain before_routing {
    type filter hook prerouting priority -150; policy drop;
$UPLINK    iifname != "$TAP" drop
    ether saddr != $MAC drop
    meta nfproto != ipv4 drop
    ip saddr != $GUEST drop
    ct state invalid drop
$FIRST    ct state established,related accept
    ct count over 1024 goto refuse
    limit rate over 200/second burst 400 packets goto refuse
    udp dport 53 accept
)";

constexpr char kGuarded[] = R"(    tcp dport { $PORTS } accept
    goto refuse
  }
  chain to_guard {
    type nat hook prerouting priority -100; policy accept;
    iifname "$TAP" udp dport 53 redirect to :53
    iifname "$TAP" tcp dport { $PORTS } redirect to :$PROXY
  }
  chain forward { type filter hook forward priority 0; policy drop; }
)";

// What is closed goes to the guard on its ports: it knows which of it the guest was told under a
// name that the operator excepted.
constexpr char kForwarding[] =
    R"(    ip daddr @closed ip daddr != @exempt tcp dport { $PORTS } accept
    ip daddr @closed ip daddr != @exempt goto refuse
    tcp dport 25 goto refuse
    meta l4proto { tcp, udp } update @allowed { ip daddr . meta l4proto . th dport }
    accept
  }
  chain to_guard {
    type nat hook prerouting priority -100; policy accept;
    iifname "$TAP" udp dport 53 redirect to :53
    iifname "$TAP" ip daddr @closed ip daddr != @exempt tcp dport { $PORTS } redirect to :$PROXY
  }
  chain forward {
    type filter hook forward priority 0; policy drop;
    tcp flags syn tcp option maxseg size set rt mtu
    iifname "$TAP" oifname "$UP" accept
    iifname "$UP" oifname "$TAP" ct state established,related accept
  }
  chain to_uplink {
    type nat hook postrouting priority 100; policy accept;
    oifname "$UP" masquerade
  }
)";

constexpr char kInetEnd[] = R"(  chain input {
    type filter hook input priority 0; policy drop;
    iifname "$TAP" ct state established,related accept
    iifname "$TAP" ip daddr $GATEWAY udp dport 53 accept
    iifname "$TAP" ct status dnat accept
  }
  chain output {
    type filter hook output priority 0; policy drop;
    oifname "$TAP" accept
  }
}
)";

constexpr char kHost[] = R"(table inet bunker_uplinks
delete table inet bunker_uplinks
table inet bunker_uplinks {
  chain input {
    type filter hook input priority -10; policy accept;
    iifname "$PREFIX*" drop
  }
  chain forward {
    type filter hook forward priority -10; policy accept;
    iifname "$PREFIX*" oifname "$PREFIX*" drop
    iifname "$PREFIX*" ip saddr != $UPLINKS drop
    iifname "$PREFIX*" meta nfproto ipv6 drop
    oifname "$PREFIX*" ct state established,related accept
    oifname "$PREFIX*" drop
$OTHERS  }
  chain to_outside {
    type nat hook postrouting priority 100; policy accept;
    iifname "$PREFIX*" ip saddr $UPLINKS masquerade
  }
}
)";

// A flow that began while somebody had taken the rules away ends when they are back.
constexpr char kClosedFirst[] = R"(    udp dport 53 accept
    ip daddr @closed ip daddr != @exempt ct state established ct status & dnat == 0 goto refuse
)";

std::string Elements(const std::vector<Ipv4Range>& ranges) {
  if (ranges.empty()) return "";
  return absl::StrCat(" elements = { ",
                      absl::StrJoin(ranges, ", ",
                                    [](std::string* out, const Ipv4Range& range) {
                                      absl::StrAppend(out, RangeText(range));
                                    }),
                      " };");
}

}  // namespace

std::string BunkerRuleset(const RulesetSpec& spec) {
  const std::string text = absl::StrCat(spec.is_first ? "" : kWithoutOld, kLink, kInetBegin,
                                        spec.forwards ? kForwarding : kGuarded, kInetEnd);
  const std::string uplink =
      spec.forwards ? "    iifname \"up0\" ct state established,related accept\n" : "";
  return absl::StrReplaceAll(
      text, {{"$TAP", kTapName},
             {"$FIRST", spec.forwards ? kClosedFirst : ""},
             {"$UPLINK", uplink},
             {"$UP", kUplinkName},
             {"$MAC", kGuestMac},
             {"$GUEST", kGuestAddress},
             {"$GATEWAY", kGatewayAddress},
             {"$PROXY", absl::StrCat(kProxyPort)},
             {"$PORTS", absl::StrJoin(spec.ports, ", ")},
             {"$CLOSED", Elements(spec.forwards ? spec.refused : std::vector<Ipv4Range>())},
             {"$EXEMPT", Elements(spec.forwards ? spec.exempt : std::vector<Ipv4Range>())}});
}

std::string HostRuleset(const HostRulesetSpec& spec) {
  const std::string others =
      spec.forwarding_was_off ? absl::StrCat("    iifname != \"", kUplinkPrefix, "*\" drop\n") : "";
  return absl::StrReplaceAll(
      kHost,
      {{"$PREFIX", kUplinkPrefix}, {"$UPLINKS", RangeText(spec.uplinks)}, {"$OTHERS", others}});
}

}  // namespace bunker::agent
