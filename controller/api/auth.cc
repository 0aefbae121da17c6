#include "controller/api/auth.h"

#include <algorithm>

#include <fmt/format.h>

#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "controller/api/errors.h"

namespace bunker::controller {
namespace {

constexpr size_t kMaxKeyBytes = 256;

}  // namespace

absl::StatusOr<std::string> KeyHashOf(std::string_view authorization) {
  ASSIGN_OR_RETURN(const std::string_view key, KeyOf(authorization));
  return Sha256Hex(key);
}

absl::StatusOr<std::string_view> KeyOf(std::string_view authorization) {
  if (authorization.empty()) {
    return ApiError("AUTH_TOKEN_MISSING",
                    "no key was sent; send the header Authorization: Bearer <your key>");
  }
  std::string scheme(authorization.substr(0, 7));
  for (char& c : scheme) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  std::string_view key = authorization.substr(std::min<size_t>(7, authorization.size()));
  while (!key.empty() && key.front() == ' ') key.remove_prefix(1);
  if (scheme != "bearer " || key.empty() || key.size() > kMaxKeyBytes) {
    return ApiError("AUTH_TOKEN_INVALID",
                    "the Authorization header holds no key; its form is Bearer <your key>");
  }
  return key;
}

Caller CallerOf(const AuthResult& auth) {
  Caller caller;
  caller.user_id = auth.user->id;
  caller.tenant_id = auth.tenant->id;
  caller.partner_id = auth.partner->id;
  caller.key_id = auth.key->id;
  caller.role = auth.role;
  caller.permissions = auth.permissions;
  caller.manages_all_bunkers = HasPermission(caller, "admin");
  caller.sees_all_bunkers = auth.role == Role::kTenantViewer || caller.manages_all_bunkers;
  return caller;
}

bool HasPermission(const Caller& caller, std::string_view permission) {
  return caller.permissions.count(std::string(kPermissionPrefix).append(permission)) > 0;
}

namespace {

absl::Status Lacks(std::string_view permission, std::string_view whose) {
  return ApiError("AUTHZ_PERMISSION_DENIED",
                  fmt::format("this needs the permission {}{}; ask {} for it", kPermissionPrefix,
                              permission, whose));
}

absl::Status CheckPartnerRank(const Caller& caller, std::string_view noun) {
  if (caller.role >= Role::kPartnerAdmin) return absl::OkStatus();
  return ApiError("AUTHZ_PERMISSION_DENIED",
                  fmt::format("a {} of the partner is for partner admins; ask one of yours, or use "
                              "the scope tenant", noun));
}

constexpr std::string_view kTenantAdmins = "an administrator of your tenant";
constexpr std::string_view kOperator = "the operator of the platform";

}  // namespace

absl::Status CheckRule(const MethodRule& rule, const Caller& caller) {
  switch (rule.need) {
    case Need::kPublic:
    case Need::kSignedIn:
      return absl::OkStatus();
    case Need::kRead:
      if (caller.role == Role::kTenantViewer || HasPermission(caller, "create"))
        return absl::OkStatus();
      return Lacks("create", kTenantAdmins);
    case Need::kKey:
      return HasPermission(caller, rule.permission) ? absl::OkStatus()
                                                    : Lacks(rule.permission, kTenantAdmins);
    case Need::kScopedKey:
    case Need::kEitherKey:
      if (HasPermission(caller, rule.permission) || HasPermission(caller, rule.platform_permission))
        return absl::OkStatus();
      return Lacks(rule.permission, kTenantAdmins);
    case Need::kPartnerAdmin:
      if (!HasPermission(caller, rule.permission)) return Lacks(rule.permission, kTenantAdmins);
      if (caller.role >= Role::kPartnerAdmin) return absl::OkStatus();
      return ApiError("AUTHZ_PERMISSION_DENIED",
                      "this is for partner admins; ask one of your partner's");
    case Need::kSuperAdmin:
      if (caller.super_admin()) return absl::OkStatus();
      return ApiError("AUTHZ_PERMISSION_DENIED",
                      "this is for super admins; ask the operator of the platform");
  }
  return absl::InternalError("a rule of another kind");
}

absl::Status CheckScopeKey(const MethodRule& rule, const Caller& caller, Scope scope,
                           std::string_view noun) {
  const bool at_platform = scope == Scope::kPlatform;
  if (at_platform && !HasPermission(caller, rule.platform_permission))
    return Lacks(rule.platform_permission, kOperator);
  const bool needs_permission = !at_platform || rule.need == Need::kKey;
  if (needs_permission && !HasPermission(caller, rule.permission))
    return Lacks(rule.permission, kTenantAdmins);
  return scope == Scope::kPartner ? CheckPartnerRank(caller, noun) : absl::OkStatus();
}

absl::Status CheckMayChange(const Caller& caller, Scope scope, std::string_view noun) {
  static constexpr MethodRule kRule = {"", Need::kScopedKey, "", false, "admin:platform"};
  if (scope == Scope::kTenant) return absl::OkStatus();
  if (scope == Scope::kPlatform) return CheckScopeKey(kRule, caller, scope, noun);
  return CheckPartnerRank(caller, noun);
}

absl::Status RateLimiter::Take(const std::string& name, absl::Time now,
                               std::optional<double> per_second) {
  if (now >= next_forget_) Forget(now);
  const double rate = per_second.value_or(per_second_);
  const double burst = std::max(1.0, rate * burst_ / per_second_);
  Bucket& bucket = buckets_.try_emplace(name, Bucket{burst, now, rate}).first->second;
  const double elapsed_s = std::max(0.0, absl::ToDoubleSeconds(now - bucket.at));
  bucket.per_second = rate;
  bucket.tokens = std::min(burst, bucket.tokens + elapsed_s * rate);
  bucket.at = now;
  if (bucket.tokens >= 1) {
    bucket.tokens -= 1;
    return absl::OkStatus();
  }
  const absl::Duration wait = absl::Seconds((1 - bucket.tokens) / rate);
  return WithRetryAfter(
      ApiError("RATE_LIMITED", fmt::format("more than {} requests a second with this key; wait as "
                                           "long as Retry-After says", rate)),
      wait);
}

void RateLimiter::Forget(absl::Time now) {
  next_forget_ = now + absl::Minutes(1);
  for (auto it = buckets_.begin(); it != buckets_.end();) {
    const double full_after_s =
        std::max(burst_ / per_second_, 1 / it->second.per_second);
    const bool is_full = absl::ToDoubleSeconds(now - it->second.at) >= full_after_s;
    it = is_full ? buckets_.erase(it) : std::next(it);
  }
}

}  // namespace bunker::controller
