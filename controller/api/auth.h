// Who calls, and what they may do: bearer keys, roles, and the ONE table of what each RPC needs.
// REST and gRPC come through here alike.
//
// Thread-safe: free functions without state, but for RateLimiter (see there).
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "controller/engine/specs.h"
#include "controller/model/account.h"

namespace bunker::controller {

// What an RPC asks of its caller.
enum class Need {
  kPublic,     // nothing, not even a key
  kSignedIn,   // a valid key
  kRead,       // `create`, or being a viewer
  kKey,        // the permission named in the row
};

struct MethodRule {
  const char* method;  // full name
  Need need = Need::kSignedIn;
  const char* permission = "";  // without "scaibunker:"
  bool mutation = false;        // takes an Idempotency-Key
};

// Every RPC of the public API, once.
const std::vector<MethodRule>& MethodRules();
const MethodRule* FindRule(std::string_view method);

// The permissions of a role, "scaibunker:…".
const std::set<std::string>& PermissionsOf(Role role);

// "Bearer <key>" → the SHA-256 of the key, 64 hex digits. AUTH_TOKEN_MISSING for an empty header,
// AUTH_TOKEN_INVALID for anything that is no key.
absl::StatusOr<std::string> KeyHashOf(std::string_view authorization);

// The caller that a key's owner is.
Caller CallerOf(const AuthResult& auth);

bool HasPermission(const Caller& caller, std::string_view permission);

// OK, or AUTHZ_PERMISSION_DENIED naming what is missing.
absl::Status CheckRule(const MethodRule& rule, const Caller& caller);

// Whether the caller may change what `scope` owns: the partner's as a partner_admin, the
// platform's as a super_admin. `noun` is for the message.
absl::Status CheckMayChange(const Caller& caller, Scope scope, std::string_view noun);

// A token bucket per key. Bounded: buckets that are full again are forgotten.
// Not thread-safe: on the core's loop.
class RateLimiter {
 public:
  RateLimiter(double per_second, double burst) : per_second_(per_second), burst_(burst) {}

  // Takes one token: OK, or RATE_LIMITED with when to come back.
  absl::Status Take(const std::string& key_id, absl::Time now);
  size_t size() const { return buckets_.size(); }

 private:
  struct Bucket {
    double tokens;
    absl::Time at;
  };
  void Forget(absl::Time now);

  const double per_second_;
  const double burst_;
  std::map<std::string, Bucket> buckets_;
  absl::Time next_forget_ = absl::InfinitePast();
};

}  // namespace bunker::controller
