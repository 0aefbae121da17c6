#include "controller/init.h"

#include <utility>

#include "common/base/id.h"
#include "common/base/reason.h"
#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "controller/model/account.h"
#include "controller/store/row_codec.h"

namespace bunker::controller {
namespace {

constexpr size_t kKeyCharacters = 43;  // of base62: 256 bits

template <typename Row>
RowWrite Write(Noun noun, const Row& row) {
  return {noun, row.id, [row] { return EncodeRow(row); }};
}

}  // namespace

absl::StatusOr<bool> IsInitialised(Store& store) {
  bool found = false;
  RETURN_IF_ERROR(store.Load(Noun::kTenant, [&found](std::string_view, std::string_view) {
    found = true;
    return absl::OkStatus();
  }));
  return found;
}

absl::StatusOr<InitResult> InitStore(Store& store, absl::Time now) {
  ASSIGN_OR_RETURN(const bool initialised, IsInitialised(store));
  if (initialised) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, "RESOURCE_IN_USE",
                       "this store is initialised already, and keys are shown once; use the key "
                       "that init printed, or begin with an empty state.dir");
  }
  SystemRng rng;
  InitResult result;
  result.key = "sgk_" + RandomBase62(kKeyCharacters);

  Partner partner;
  partner.id = result.partner_id = NewId("ptr_", now, rng);
  partner.name = "default";
  partner.created_at = now;
  Tenant tenant;
  tenant.id = result.tenant_id = NewId("tnt_", now, rng);
  tenant.name = "default";
  tenant.partner_id = partner.id;
  tenant.created_at = now;
  User user;
  user.id = result.user_id = NewId("usr_", now, rng);
  user.tenant_id = tenant.id;
  user.name = "admin";
  user.role = Role::kSuperAdmin;
  user.created_at = now;
  ApiKey key;
  key.id = result.key_id = NewId("key_", now, rng);
  key.sha256 = Sha256Hex(result.key);
  key.user_id = user.id;
  key.tenant_id = tenant.id;
  key.name = "init";
  key.created_at = now;

  Batch batch;
  batch.push_back(Write(Noun::kPartner, partner));
  batch.push_back(Write(Noun::kTenant, tenant));
  batch.push_back(Write(Noun::kUser, user));
  batch.push_back(Write(Noun::kApiKey, key));
  RETURN_IF_ERROR(CommitAndWait(store, std::move(batch)));
  return result;
}

}  // namespace bunker::controller
