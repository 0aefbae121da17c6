// How a registry wants to be asked: anonymously, with a name and password, or with a token that
// its token service gives out for one repository (to anyone, for a name and password, or for an
// identity token).
//
// Thread-safe: a RegistryAuth serves all fetches of one repository at one registry.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/pull/backoff.h"
#include "agent/pull/host_table.h"
#include "common/base/mutex.h"
#include "common/http/http_client.h"

namespace bunker::agent {

// One challenge of a WWW-Authenticate header.
struct AuthChallenge {
  std::string scheme;                         // lower case: "bearer", "basic"
  std::map<std::string, std::string> params;  // names in lower case
};

// The first bearer or else basic challenge of the header's value; nullopt where there is none.
std::optional<AuthChallenge> ParseChallenge(std::string_view value);

// Whether the registry's credentials may be shown to the token service at `realm`: its own host,
// a host whose subdomain it is (registry.gitlab.com -> gitlab.com), Docker Hub's own, or one that
// the configuration binds to it.
bool IsRealmBound(const RegistryEndpoint& endpoint, const http::Url& realm);

class RegistryAuth {
 public:
  RegistryAuth(RegistryEndpoint endpoint, std::string repository, http::Client* client,
               absl::Duration timeout)
      : endpoint_(std::move(endpoint)),
        repository_(std::move(repository)),
        client_(client),
        timeout_(timeout) {}

  // The Authorization header to send now; "" for none.
  std::string Header();

  // What to do about a 401 to a request that was sent with `used_header`: OK means that Header()
  // now gives something new to try. REGISTRY_AUTH_FAILED, or what keeps the token service away;
  // where that asks to be left alone for a while, `*retry_after` has its words.
  absl::Status OnUnauthorized(const http::Response& response, const std::string& used_header,
                              const StopFn& stop, std::string* retry_after);

  // `text` without the credentials and tokens in use, should a registry repeat them in its errors.
  std::string Scrub(std::string text) const;

 private:
  absl::Status FetchToken(const AuthChallenge& challenge, const StopFn& stop,
                          std::string* retry_after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status SignInBasic(const std::string& used_header) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<http::Request> TokenRequest(const AuthChallenge& challenge, const StopFn& stop);
  absl::Status KeepToken(const http::Response& response, const http::Url& realm)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string BasicHeader() const;
  std::string Remedy() const;

  const RegistryEndpoint endpoint_;
  const std::string repository_;
  http::Client* const client_;
  const absl::Duration timeout_;

  Mutex mutex_;  // held while a token is fetched, so that parallel fetches share it
  std::string header_ ABSL_GUARDED_BY(mutex_);
  absl::Time expires_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();

  mutable Mutex scrub_mutex_;
  std::string last_token_ ABSL_GUARDED_BY(scrub_mutex_);
};

}  // namespace bunker::agent
