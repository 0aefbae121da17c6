#include "controller/api/auth.h"

#include <algorithm>

#include <fmt/format.h>

#include "common/base/sha256.h"
#include "controller/api/errors.h"

namespace bunker::controller {
namespace {

constexpr std::string_view kPrefix = "scaibunker:";
constexpr size_t kMaxKeyBytes = 256;

constexpr const char* kAllPermissions[] = {
    "create", "create:session", "create:persistent", "execute", "shell", "files", "root",
    "network:registry", "network:allowlisted", "network:unrestricted", "network:transit",
    "l2_transparency", "images:manage", "admin", "admin:tenant", "admin:platform"};

constexpr const char* kTenantUserPermissions[] = {"create", "create:session", "execute", "shell",
                                                  "files",  "root",           "network:registry"};

template <size_t N>
std::set<std::string> Keys(const char* const (&names)[N], std::string_view but = "") {
  std::set<std::string> keys;
  for (const char* name : names) {
    if (name != but) keys.insert(std::string(kPrefix) + name);
  }
  return keys;
}

}  // namespace

const std::set<std::string>& PermissionsOf(Role role) {
  static const auto* const all = new std::set<std::string>(Keys(kAllPermissions));
  static const auto* const admin =
      new std::set<std::string>(Keys(kAllPermissions, "admin:platform"));
  static const auto* const user = new std::set<std::string>(Keys(kTenantUserPermissions));
  static const auto* const none = new std::set<std::string>();
  switch (role) {
    case Role::kSuperAdmin: return *all;
    case Role::kPartnerAdmin: case Role::kTenantAdmin: return *admin;
    case Role::kTenantUser: return *user;
    case Role::kTenantViewer: return *none;
  }
  return *none;
}

absl::StatusOr<std::string> KeyHashOf(std::string_view authorization) {
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
  return Sha256Hex(key);
}

Caller CallerOf(const AuthResult& auth) {
  Caller caller;
  caller.user_id = auth.user->id;
  caller.tenant_id = auth.tenant->id;
  caller.partner_id = auth.partner->id;
  caller.key_id = auth.key->id;
  caller.role = auth.user->role;
  caller.permissions = PermissionsOf(auth.user->role);
  caller.permissions.insert(auth.user->permissions.begin(), auth.user->permissions.end());
  caller.sees_all_bunkers =
      auth.user->role == Role::kTenantViewer || HasPermission(caller, "admin");
  return caller;
}

bool HasPermission(const Caller& caller, std::string_view permission) {
  return caller.permissions.count(std::string(kPrefix).append(permission)) > 0;
}

absl::Status CheckRule(const MethodRule& rule, const Caller& caller) {
  const bool is_read = rule.need == Need::kRead;
  if (is_read && caller.role == Role::kTenantViewer) return absl::OkStatus();
  if (!is_read && rule.need != Need::kKey) return absl::OkStatus();
  const std::string_view wanted = is_read ? "create" : rule.permission;
  if (HasPermission(caller, wanted)) return absl::OkStatus();
  return ApiError("AUTHZ_PERMISSION_DENIED",
                  fmt::format("this needs the permission {}{}; ask an administrator of your tenant "
                              "for it", kPrefix, wanted));
}

absl::Status CheckMayChange(const Caller& caller, Scope scope, std::string_view noun) {
  const bool allowed =
      scope == Scope::kTenant ||
      (scope == Scope::kPartner && (caller.role == Role::kPartnerAdmin || caller.super_admin())) ||
      (scope == Scope::kPlatform && HasPermission(caller, "admin:platform"));
  if (allowed) return absl::OkStatus();
  return ApiError("AUTHZ_PERMISSION_DENIED",
                  fmt::format("this {} belongs to the {}; only a {} may change it", noun,
                              scope == Scope::kPartner ? "partner" : "platform",
                              scope == Scope::kPartner ? "partner_admin" : "super_admin"));
}

absl::Status RateLimiter::Take(const std::string& key_id, absl::Time now) {
  if (now >= next_forget_) Forget(now);
  Bucket& bucket = buckets_.try_emplace(key_id, Bucket{burst_, now}).first->second;
  const double elapsed_s = std::max(0.0, absl::ToDoubleSeconds(now - bucket.at));
  bucket.tokens = std::min(burst_, bucket.tokens + elapsed_s * per_second_);
  bucket.at = now;
  if (bucket.tokens >= 1) {
    bucket.tokens -= 1;
    return absl::OkStatus();
  }
  const absl::Duration wait = absl::Seconds((1 - bucket.tokens) / per_second_);
  return WithRetryAfter(
      ApiError("RATE_LIMITED", fmt::format("more than {} requests a second with this key; wait as "
                                           "long as Retry-After says", per_second_)),
      wait);
}

void RateLimiter::Forget(absl::Time now) {
  next_forget_ = now + absl::Minutes(1);
  const double full_after_s = burst_ / per_second_;
  for (auto it = buckets_.begin(); it != buckets_.end();) {
    const bool is_full = absl::ToDoubleSeconds(now - it->second.at) >= full_after_s;
    it = is_full ? buckets_.erase(it) : std::next(it);
  }
}

}  // namespace bunker::controller
