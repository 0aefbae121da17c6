#include "controller/engine/bootstrap.h"

#include "common/base/id.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/model/account.h"
#include "controller/store/row_codec.h"

namespace bunker::controller {

absl::StatusOr<BootstrapResult> Bootstrap(Store& store, const BootstrapSpec& spec, absl::Time now,
                                          Rng& rng) {
  bool empty = true;
  for (const Noun noun : {Noun::kPartner, Noun::kTenant, Noun::kUser}) {
    RETURN_IF_ERROR(store.Load(noun, [&](std::string_view, std::string_view) {
      empty = false;
      return absl::OkStatus();
    }));
  }
  if (!empty) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, "RESOURCE_IN_USE",
                       "the store has been initialised already: its keys were shown then; to start "
                       "over, stop the controller and move the store away");
  }
  const Partner partner{NewId("ptr_", now, rng), spec.partner_name, now};
  Tenant tenant;
  tenant.id = NewId("tnt_", now, rng);
  tenant.name = spec.tenant_name;
  tenant.partner_id = partner.id;
  tenant.created_at = now;
  User user;
  user.id = NewId("usr_", now, rng);
  user.tenant_id = tenant.id;
  user.name = "admin";
  user.role = Role::kSuperAdmin;
  user.created_at = now;
  ApiKey key;
  key.id = NewId("key_", now, rng);
  key.sha256 = spec.key_sha256;
  key.user_id = user.id;
  key.tenant_id = tenant.id;
  key.name = "admin";
  key.created_at = now;
  RETURN_IF_ERROR(CommitAndWait(
      store, {{Noun::kPartner, partner.id, [partner] { return EncodeRow(partner); }},
              {Noun::kTenant, tenant.id, [tenant] { return EncodeRow(tenant); }},
              {Noun::kUser, user.id, [user] { return EncodeRow(user); }},
              {Noun::kApiKey, key.id, [key] { return EncodeRow(key); }}}));
  return BootstrapResult{partner.id, tenant.id, user.id, key.id};
}

}  // namespace bunker::controller
