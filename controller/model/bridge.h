// A bridge of workers' hosts, registered so that bunkers of certain tenants may attach to it. What
// is not registered does not exist for a tenant.
#pragma once

#include <set>
#include <string>

#include "absl/time/time.h"
#include "controller/model/scope.h"

namespace bunker::controller {

struct Bridge {
  std::string id;    // br_…
  std::string name;  // of the bridge on the hosts; unique per owner
  Ownership ownership;
  std::string owner;  // the user who registered it
  // Whose workers it stands for: as far as its registrar administered workers. A tenant's admin
  // can't open the bridges of a worker that is only shared with the tenant.
  Ownership reach;
  std::set<std::string> tenant_ids;  // who may attach; never empty
  std::set<std::string> worker_ids;  // empty: every worker in reach
  absl::Time created_at;
};

// Whether what `owner` owns lies within `reach`.
inline bool Covers(const Ownership& reach, const Ownership& owner) {
  switch (reach.scope) {
    case Scope::kPlatform:
      return true;
    case Scope::kPartner:
      return owner.scope != Scope::kPlatform && owner.partner_id == reach.partner_id;
    case Scope::kTenant:
      return owner.scope == Scope::kTenant && owner.tenant_id == reach.tenant_id;
  }
  return false;
}

}  // namespace bunker::controller
