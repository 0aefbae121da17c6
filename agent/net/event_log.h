// What a guest was allowed and refused, with repeats folded into one. Bounded: the oldest go.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>

#include "absl/time/time.h"
#include "bunker/agent/v1/netguard.pb.h"

namespace bunker::agent {

class EventLog {
 public:
  static constexpr size_t kMaxEvents = 256;

  struct What {
    bool allowed = false;
    std::string rule;
    std::string proto;
    std::string dst;
    uint32_t port = 0;
    std::string name;
    auto operator<=>(const What&) const = default;
  };

  void Note(What what, absl::Time at, uint64_t count = 1);

  // Newest first, at most `max`.
  v1::GuardReport Report(size_t max = kMaxEvents) const;

 private:
  struct Times {
    absl::Time at;
    uint64_t count = 0;
    uint64_t order = 0;
  };
  std::map<What, Times> events_;
  std::map<uint64_t, const What*> by_order_;  // oldest first
  uint64_t next_order_ = 1;
};

}  // namespace bunker::agent
