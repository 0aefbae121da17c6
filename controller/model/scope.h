// Who owns a thing and who may see it. Scopes nest: platform ⊃ partner ⊃ tenant.
//
// Thread-safe: values and pure functions.
#pragma once

#include <span>
#include <string>

#include "controller/model/enum_names.h"

namespace bunker::controller {

enum class Scope { kTenant, kPartner, kPlatform };

inline constexpr EnumName<Scope> kScopeNames[] = {
    {Scope::kTenant, "tenant"}, {Scope::kPartner, "partner"}, {Scope::kPlatform, "platform"}};
inline std::span<const EnumName<Scope>> EnumNames(Scope) { return kScopeNames; }

// The owner of an image, a group or a worker. tenant_id is set for kTenant alone; partner_id for
// kTenant (the tenant's partner) and kPartner.
struct Ownership {
  Scope scope = Scope::kTenant;
  std::string tenant_id;
  std::string partner_id;

  bool operator==(const Ownership&) const = default;
};

// Whether one who belongs to `viewer` may see and use what `owner` owns: its own scope and every
// scope around it. A tenant sees its own, its partner's and the platform's; the platform sees
// only the platform's.
bool Reaches(const Ownership& viewer, const Ownership& owner);

}  // namespace bunker::controller
