// The packet rules as text for `nft -f -`: pure functions of numbers and of ranges that were
// parsed and written anew; nothing of a tenant's is in them.
#pragma once

#include <string>
#include <vector>

#include "agent/net/address_rules.h"

namespace bunker::agent {

// The same in every bunker's namespace, so that a guest made from another's memory has a working
// network at once.
inline constexpr char kTapName[] = "tap0";
inline constexpr char kUplinkName[] = "up0";
inline constexpr char kGatewayAddress[] = "10.200.0.1";
inline constexpr char kGuestAddress[] = "10.200.0.2";
inline constexpr int kGuestPrefixBits = 30;
inline constexpr char kGatewayMac[] = "02:62:6b:00:00:01";
inline constexpr char kGuestMac[] = "02:62:6b:00:00:02";
inline constexpr uint16_t kProxyPort = 15080;

struct RulesetSpec {
  bool is_first = false;           // there are no tables to replace: loaded in a third of the time
  bool forwards = false;           // unrestricted; else nothing leaves but by the guard
  std::vector<uint16_t> ports;     // TCP ports that the guard's proxy takes
  std::vector<Ipv4Range> refused;  // only where it forwards
  std::vector<Ipv4Range> exempt;
};

// Makes or replaces the namespace's tables in one transaction. Default drop on every hook.
std::string BunkerRuleset(const RulesetSpec& spec);

struct HostRulesetSpec {
  Ipv4Range uplinks;                // that the uplinks' addresses are of
  bool forwarding_was_off = false;  // we turned it on: then it is on for the bunkers alone
};

// Uplinks on the host's side are named kUplinkPrefix + a number.
inline constexpr char kUplinkPrefix[] = "bkv";
std::string HostRuleset(const HostRulesetSpec& spec);

}  // namespace bunker::agent
