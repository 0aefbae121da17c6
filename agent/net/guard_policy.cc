#include "agent/net/guard_policy.h"

#include "common/base/status_macros.h"

namespace bunker::agent {

absl::StatusOr<GuardPolicy> PolicyOf(const v1::GuardConfig& config) {
  GuardPolicy policy;
  policy.names = NameSet({config.names().begin(), config.names().end()});
  policy.any_name = config.any_name();
  policy.exempt_names = NameSet({config.exempt_names().begin(), config.exempt_names().end()});
  std::vector<Ipv4Range> refused, exempt;
  for (const std::string& text : config.refused_ranges()) {
    ASSIGN_OR_RETURN(const Ipv4Range range, ParseRange(text));
    refused.push_back(range);
  }
  for (const std::string& text : config.exempt_ranges()) {
    ASSIGN_OR_RETURN(const Ipv4Range range, ParseRange(text));
    exempt.push_back(range);
  }
  policy.addresses = AddressRules(std::move(refused), std::move(exempt));
  for (const std::string& text : config.resolvers()) {
    ASSIGN_OR_RETURN(const Ipv4 address, ParseIpv4(text));
    policy.resolvers.push_back(address);
  }
  return policy;
}

}  // namespace bunker::agent
