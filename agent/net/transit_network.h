// The cards of the profile transit in a bunker's namespace, joined to bridges of the host. Needs
// root; calls block; thread-safe: free functions.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/net/transit_rules.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {

// Whether the host has a bridge of that name.
bool IsBridge(const std::string& name);

struct TransitPlan {
  std::string space;  // the namespace, which exists
  uint32_t slot = 0;
  uint32_t bandwidth_mbit = 0;  // each way, all cards together; 0: no limit
  std::vector<TransitCard> cards;
  std::vector<CardRules> rules;  // of the same cards
};

// Taps, then `apply_rules`, then what leads out, whose host ends come up last. A guarded card's MAC
// is entered at the bridge for good: no frame of somebody else's moves it, and one that another has
// there is an error.
absl::StatusOr<std::vector<UniqueFd>> BuildTransit(
    const TransitPlan& plan, const std::function<absl::Status()>& apply_rules);

// Ends what leads out of that namespace at once: by itself it would go some time after that.
absl::Status DisconnectTransit(const std::string& space);

// Whether this host can do all this, without a bridge of its own. The namespace exists, and is to
// be removed.
absl::Status ProbeTransit(const std::string& space);

}  // namespace bunker::agent
