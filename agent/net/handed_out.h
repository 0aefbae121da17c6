// Which addresses a guest was told under which names, and until when: the only ones it may connect
// to. Not thread-safe.
#pragma once

#include <map>
#include <string>

#include "absl/time/time.h"
#include "agent/net/address_rules.h"

namespace bunker::agent {

class HandedOut {
 public:
  // `until` on the monotonic clock. Bounded: the entry that ends first makes room.
  void Add(Ipv4 address, const std::string& name, absl::Duration until);

  // Whether `name` was answered with `address` and the answer still holds.
  bool Holds(Ipv4 address, const std::string& name, absl::Duration now) const;
  bool HoldsAny(Ipv4 address, absl::Duration now) const;

  size_t size() const { return entries_.size(); }

 private:
  void MakeRoom();

  std::map<std::pair<Ipv4, std::string>, absl::Duration> entries_;
};

}  // namespace bunker::agent
