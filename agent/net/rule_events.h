// What `nft -j list ruleset` says of one bunker's namespace: how the rules read, and what they
// counted.
//
// Thread-safe: a free function.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bunker/agent/v1/netguard.pb.h"

namespace bunker::agent {

struct RulesSeen {
  std::string text;  // the same as long as nobody changed them
  std::vector<v1::GuardEvent> events;
};

absl::StatusOr<RulesSeen> ReadRules(const std::string& json, absl::Time now);

}  // namespace bunker::agent
