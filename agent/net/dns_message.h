// The little of DNS that the guard speaks: one question, IPv4 answers. Both sides' bytes are
// hostile: a guest's questions, and answers from wherever the worker's resolver asks.
//
// Thread-safe: free functions. No input makes any of them read out of bounds or loop.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/net/address_rules.h"

namespace bunker::agent {

inline constexpr uint16_t kDnsTypeA = 1;
inline constexpr uint16_t kDnsTypeAaaa = 28;
inline constexpr uint16_t kDnsTypeHttps = 65;
inline constexpr int kDnsNoError = 0;
inline constexpr int kDnsServerFailure = 2;
inline constexpr int kDnsNoSuchName = 3;
inline constexpr int kDnsNotImplemented = 4;
inline constexpr int kDnsRefused = 5;
inline constexpr size_t kMaxDnsBytes = 4096;

struct DnsQuestion {
  uint16_t id = 0;
  bool recursion_desired = false;
  std::string name;  // canonical; "" where it is no host name
  uint16_t type = 0;
  std::string raw;  // the question section as it came, for the answer
};

struct DnsAddress {
  Ipv4 address = 0;
  uint32_t ttl_s = 0;
};

struct DnsReply {
  int rcode = 0;
  std::vector<DnsAddress> addresses;  // of the name that was asked, aliases followed; ≤ 32
};

// An error means: no answer is due (not a query, damaged).
absl::StatusOr<DnsQuestion> ParseDnsQuery(std::string_view bytes);

std::string BuildDnsAnswer(const DnsQuestion& question, int rcode,
                           const std::vector<DnsAddress>& addresses);

// A query of our own for the A records of `name` (canonical).
std::string BuildDnsQuery(uint16_t id, std::string_view name);

// An error means: not an answer to that query; wait on.
absl::StatusOr<DnsReply> ParseDnsReply(std::string_view bytes, uint16_t id, std::string_view name);

}  // namespace bunker::agent
