#include "controller/model/scope.h"

namespace bunker::controller {

bool Reaches(const Ownership& viewer, const Ownership& owner) {
  switch (owner.scope) {
    case Scope::kPlatform:
      return true;
    case Scope::kPartner:
      return viewer.scope != Scope::kPlatform && viewer.partner_id == owner.partner_id;
    case Scope::kTenant:
      return viewer.scope == Scope::kTenant && viewer.tenant_id == owner.tenant_id;
  }
  return false;
}

}  // namespace bunker::controller
