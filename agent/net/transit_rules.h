// The profile transit: a bunker's cards on bridges of the host, as values, and the packet rules
// that hold each card to what it may call itself. Pure functions of what was parsed and written
// anew; nothing of a tenant's text is in them.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/net/address_rules.h"

namespace bunker::agent {

inline constexpr size_t kMaxTransitCards = 8;

// As it was asked for.
struct TransitCard {
  std::string bridge;  // of the host
  bool spoof_guard = true;
  std::string mac;
  std::string ipv4;  // "address/bits"; "": none
  bool operator==(const TransitCard&) const = default;
};

// As it was understood.
struct CardRules {
  bool guarded = true;
  std::string mac;              // "02:00:5e:10:00:01"
  std::optional<Ipv4> address;  // nothing: a guarded card sends nothing at all
};

// Six pairs of hex digits, not of a group of hosts; in lower case.
absl::StatusOr<std::string> ParseMac(std::string_view text);

// An error names the card and what is wrong with it. At most kMaxTransitCards.
absl::StatusOr<std::vector<CardRules>> ParseCards(const std::vector<TransitCard>& cards);

// Whether Linux may have a device of that name: 1 to 15 of A-Z a-z 0-9 . _ -
bool IsDeviceName(std::string_view name);

// In the bunker's namespace card number i is tap<i>, and a bridge lan<i> of its own joins that with
// port<i>, whose other end is on the host's bridge.
std::string TransitTapName(size_t card);
std::string TransitPortName(size_t card);
std::string TransitLanName(size_t card);
inline constexpr char kTransitPortPrefix[] = "port";
// The host's end: "bkt", a number, a letter.
std::string TransitHostName(uint32_t slot, size_t card);

// Makes the namespace's table, or replaces it in one transaction where it is not `is_first`.
// Default drop; the namespace itself neither hears nor says anything. A guarded card's frames have
// its MAC; they are ARP in its own name or IPv4 from its own address, and no answers of a DHCP
// server. To it come frames for it and for all, of these two kinds.
std::string TransitRuleset(const std::vector<CardRules>& cards, bool is_first);

}  // namespace bunker::agent
