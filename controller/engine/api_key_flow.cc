// Keys: minted once, never stronger than what mints them.
#include <algorithm>
#include <utility>

#include "common/base/status_macros.h"
#include "controller/engine/account_rules.h"
#include "controller/engine/accounts.h"
#include "controller/engine/state.h"
#include "controller/model/permissions.h"

namespace bunker::controller {
namespace {

absl::Status CheckExpiry(absl::Time now, const std::optional<absl::Time>& expires_at) {
  if (!expires_at) return absl::OkStatus();
  if (*expires_at <= now)
    return Invalid("expires_at: lies in the past: choose a time to come, or leave it out");
  if (*expires_at > now + kMaxKeyLifetime)
    return Invalid(
        "expires_at: is more than a hundred years away: leave it out for a key that "
        "does not expire");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RowPtr<ApiKey>> Accounts::CreateApiKey(Turn& turn, const Caller& caller,
                                                      const CreateApiKeySpec& spec) {
  Engine::State& s = state_;
  const std::string user_id = spec.user_id.empty() ? caller.user_id : spec.user_id;
  if (user_id.empty()) return Invalid("user_id: is required of the operator, who is no user");
  ASSIGN_OR_RETURN(const RowPtr<User> user, FindUser(caller, user_id));
  RETURN_IF_ERROR(CheckExpiry(turn.now(), spec.expires_at));

  const RowPtr<ApiKey> minting = s.api_keys.Find(caller.key_id);  // null: the operator's socket
  const uint32_t most = minting != nullptr && minting->rate_limit_per_s ? *minting->rate_limit_per_s
                        : caller.platform_admin()                       ? kMaxRatePerS
                                                  : s.options.max_key_rate_per_s;
  if (spec.rate_limit_per_s && *spec.rate_limit_per_s > most) {
    return Invalid("rate_limit_per_s: must be from 1 to " + std::to_string(most) +
                   ", what the key that makes it may itself give");
  }

  const std::set<std::string> held = PermissionsOfUser(*user);
  const std::set<std::string>& wanted = spec.permissions ? *spec.permissions : held;
  std::string missing;
  const bool own = user_id == caller.user_id;
  const bool is_stronger =
      user->role > caller.role || (user->role == Role::kTenantViewer && !caller.sees_all_bunkers);
  if (!own && is_stronger) return Stronger("user");
  if (!HoldsAll(caller.permissions, wanted, &missing)) {
    return Denied("the key would hold " + missing + ", which you don't",
                  "name fewer in permissions, or ask one who holds it");
  }
  if (!HoldsAll(held, wanted, &missing))
    return Invalid("permissions: " + missing + " is not held by the user: leave it out");
  if (s.account_index.keys_of_user.Of(user_id).size() >= kMaxKeysOfUser)
    return TooMany("keys of this user", kMaxKeysOfUser);
  if (s.account_index.keys_of_tenant.Of(user->tenant_id).size() >= kMaxKeysOfTenant)
    return TooMany("keys in this tenant", kMaxKeysOfTenant);

  ApiKey row;
  row.id = s.MakeId("key_", turn.now());
  row.sha256 = spec.sha256;
  row.user_id = user_id;
  row.tenant_id = user->tenant_id;
  row.name = spec.name;
  row.permissions = spec.permissions;
  row.expires_at = spec.expires_at;
  row.rate_limit_per_s = spec.rate_limit_per_s;
  row.created_at = turn.now();
  // Who makes a key knows it, and must not hold more by it when its user is given more.
  const bool bound = minting != nullptr && (!own || minting->permissions || minting->max_role);
  if (bound) {
    row.permissions = wanted;
    row.max_role = std::min(user->role, caller.role);
  }
  if (!row.rate_limit_per_s && minting != nullptr) row.rate_limit_per_s = minting->rate_limit_per_s;
  return s.api_keys.Put(turn, std::move(row));
}

absl::StatusOr<RowPtr<ApiKey>> Accounts::FindApiKey(const Caller& caller,
                                                    const std::string& id) const {
  RowPtr<ApiKey> row = state_.api_keys.Find(id);
  if (row == nullptr || !MaySeeTenant(caller, row->tenant_id)) return NotFound("key", id);
  return row;
}

absl::StatusOr<Page<ApiKey>> Accounts::ListApiKeys(const Caller& caller, const std::string& user_id,
                                                   const PageSpec& page) const {
  const Engine::State& s = state_;
  const auto keep = [&](const ApiKey& row) { return MaySeeTenant(caller, row.tenant_id); };
  const auto find = [&](const std::string& id) { return s.api_keys.Find(id); };
  if (!user_id.empty()) {
    RETURN_IF_ERROR(FindUser(caller, user_id).status());
    return NewestFirst<ApiKey>(s.account_index.keys_of_user.Of(user_id), page, find, keep);
  }
  if (caller.role < Role::kPartnerAdmin)
    return NewestFirst<ApiKey>(s.account_index.keys_of_tenant.Of(caller.tenant_id), page, find,
                               keep);
  return NewestFirst<ApiKey>(s.api_keys.rows(), page, keep);
}

absl::StatusOr<RowPtr<ApiKey>> Accounts::RevokeApiKey(Turn& turn, const Caller& caller,
                                                      const std::string& id) {
  Engine::State& s = state_;
  ASSIGN_OR_RETURN(const RowPtr<ApiKey> found, FindApiKey(caller, id));
  if (id != caller.key_id) {
    const RowPtr<User> user = s.users.Find(found->user_id);
    if (user != nullptr && user->role > caller.role) return Stronger("key");
    const std::set<std::string> held = found->permissions ? *found->permissions
                                       : user == nullptr  ? std::set<std::string>()
                                                          : PermissionsOfUser(*user);
    if (!HoldsAll(caller.permissions, held, nullptr)) return Stronger("key");
  }
  if (found->revoked_at) return found;
  ApiKey row = *found;
  row.revoked_at = turn.now();
  return s.api_keys.Put(turn, std::move(row));
}

void Accounts::Sweep(Turn& turn) {
  Engine::State& s = state_;
  const absl::Time before = turn.now() - kForgetKeysAfter;
  std::vector<std::string> old;
  for (const auto& [id, row] : s.api_keys.rows()) {
    const bool is_old = (row->revoked_at && *row->revoked_at < before) ||
                        (row->expires_at && *row->expires_at < before);
    if (is_old) old.push_back(id);
  }
  for (const std::string& id : old) s.api_keys.Erase(turn, id);
}

}  // namespace bunker::controller
