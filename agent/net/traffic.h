// What went through a bunker's cards.
//
// Thread-safe: free functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace bunker::agent {

// As the guest counts.
struct Traffic {
  uint64_t received_bytes = 0;
  uint64_t sent_bytes = 0;
  bool operator==(const Traffic&) const = default;
};

// Of /proc/net/dev: all taps together. The host's side of a tap receives what the guest sends.
Traffic ParseTraffic(std::string_view devices);

// Of the namespace of that name. Needs root; some 0.1 ms.
absl::StatusOr<Traffic> ReadTraffic(const std::string& space);

}  // namespace bunker::agent
