// What one guard decides by, and what it has decided so far. Shared by its DNS side and its proxy,
// on the guard's one thread.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/net/address_rules.h"
#include "agent/net/event_log.h"
#include "agent/net/handed_out.h"
#include "agent/net/name_set.h"
#include "bunker/agent/v1/netguard.pb.h"

namespace bunker::agent {

struct GuardPolicy {
  NameSet names;
  bool any_name = false;
  NameSet exempt_names;
  AddressRules addresses;
  std::vector<Ipv4> resolvers;

  HandedOut handed_out;
  EventLog events;

  // May the guest learn addresses of that name (canonical)?
  bool MayResolve(const std::string& name) const { return any_name || names.Allows(name); }
  // May it be told this address under that name?
  bool MayHandOut(Ipv4 address, const std::string& name) const {
    return !addresses.Refuses(address) || exempt_names.Allows(name);
  }
};

// An error names the entry that is wrong.
absl::StatusOr<GuardPolicy> PolicyOf(const v1::GuardConfig& config);

}  // namespace bunker::agent
