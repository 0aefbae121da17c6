// Who calls, and what they may do: bearer keys, roles, and the ONE table of what each RPC needs.
// REST and gRPC come through here alike.
//
// Thread-safe: free functions without state, but for RateLimiter (see there).
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "controller/engine/specs.h"
#include "controller/model/account.h"
#include "controller/model/permissions.h"
#include "google/protobuf/message.h"

namespace bunker::controller {

// What an RPC asks of its caller before its handler runs.
enum class Need {
  kPublic,      // nothing, not even a key
  kSignedIn,    // a valid key
  kRead,        // `create`, or being a viewer
  kKey,         // `permission`
  kScopedKey,   // `permission` or `platform_permission`: which one, the row's scope says
  kEitherKey,   // `permission` or `platform_permission`: what is shown differs
  kPartnerAdmin,  // `permission`, as a partner_admin or super_admin
  kSuperAdmin,    // the role
};

enum class Extra {
  kNone,
  kStart,         // starts a command: CallContext::audit->Started() in the turn before it does
  kSecretAnswer,  // the answer holds a secret: it is not stored in the clear for repeats
};

// A row with a `platform_permission` is about things that have a scope. Its handler calls
// CheckScope() with the scope that a create asks for, or CheckMayChange() with the owner of the
// row that it found (both in dispatcher.h): a call that succeeds without is taken back.
//
//   scope of the thing   kKey                                 kScopedKey
//   tenant               permission                           permission
//   partner              permission, as a partner_admin       permission, as a partner_admin
//   platform             permission and platform_permission   platform_permission
struct MethodRule {
  const char* method;  // full name
  Need need = Need::kSignedIn;
  const char* permission = "";           // without "scaibunker:"
  bool mutation = false;                 // takes an Idempotency-Key
  const char* platform_permission = "";  // without "scaibunker:"; "" = things without a scope
  Extra extra = Extra::kNone;

  bool scoped() const { return need != Need::kEitherKey && *platform_permission != '\0'; }
  // Has a row in the audit chain: every mutation, and every start of a command.
  bool audited() const { return mutation || extra == Extra::kStart; }
};

// A value of a request that needs a permission of its own.
struct ValueRule {
  const char* method;      // full name
  const char* field;       // "bunker.lifecycle_mode"; lists are looked through
  const char* value;       // as JSON spells it
  const char* permission;  // without "scaibunker:"
  const char* code;        // of the refusal
  bool noted = false;      // its use is written into the call's audit row
};
const std::vector<ValueRule>& ValueRules();

// OK, or the first value of `request` that the caller may not use. Adds what is to be noted in the
// audit row to `*notes`.
absl::Status CheckValues(const MethodRule& rule, const Caller& caller,
                         const google::protobuf::Message& request,
                         std::vector<std::string>* notes);

// Every RPC of the public API, once.
const std::vector<MethodRule>& MethodRules();
const MethodRule* FindRule(std::string_view method);

// "Bearer <key>" → the SHA-256 of the key, 64 hex digits. AUTH_TOKEN_MISSING for an empty header,
// AUTH_TOKEN_INVALID for anything that is no key.
absl::StatusOr<std::string> KeyHashOf(std::string_view authorization);

// The key itself. The same errors.
absl::StatusOr<std::string_view> KeyOf(std::string_view authorization);

// The caller that a key's owner is.
Caller CallerOf(const AuthResult& auth);

bool HasPermission(const Caller& caller, std::string_view permission);

// OK, or AUTHZ_PERMISSION_DENIED naming what is missing.
absl::Status CheckRule(const MethodRule& rule, const Caller& caller);

// Whether the caller holds what `rule` asks for a thing at `scope` (the table at MethodRule), or
// AUTHZ_PERMISSION_DENIED. `noun` is for the message. REQUIRES: CheckRule() was OK, rule.scoped().
absl::Status CheckScopeKey(const MethodRule& rule, const Caller& caller, Scope scope,
                           std::string_view noun);

// The same for rules without a platform_permission: the partner's as a partner_admin, the
// platform's with admin:platform.
absl::Status CheckMayChange(const Caller& caller, Scope scope, std::string_view noun);

// A token bucket for each name. Bounded: buckets that are full again are forgotten.
// Not thread-safe: on the core's loop.
class RateLimiter {
 public:
  RateLimiter(double per_second, double burst) : per_second_(per_second), burst_(burst) {}

  // Takes one token: OK, or RATE_LIMITED with when to come back. `per_second`: a rate of its own,
  // with a burst of as many seconds' worth as the default one has.
  absl::Status Take(const std::string& name, absl::Time now,
                    std::optional<double> per_second = std::nullopt);
  size_t size() const { return buckets_.size(); }

 private:
  struct Bucket {
    double tokens;
    absl::Time at;
    double per_second;
  };
  void Forget(absl::Time now);

  const double per_second_;
  const double burst_;
  std::map<std::string, Bucket> buckets_;
  absl::Time next_forget_ = absl::InfinitePast();
};

}  // namespace bunker::controller
