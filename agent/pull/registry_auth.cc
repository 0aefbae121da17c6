#include "agent/pull/registry_auth.h"

#include <algorithm>
#include <cctype>

#include "absl/strings/escaping.h"
#include "absl/time/clock.h"
#include "agent/pull/pull_error.h"
#include "common/base/converters.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/oci/json_guard.h"
#include "nlohmann/json.hpp"

namespace bunker::agent {
namespace {
constexpr size_t kMaxTokenBytes = 64u << 10;
constexpr uint64_t kDefaultTokenLifeS = 60;
constexpr uint64_t kMaxTokenLifeS = 24 * 3600;
constexpr absl::Duration kExpiryMargin = absl::Seconds(1);

std::string Lower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

bool IsTokenChar(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

void SkipSpace(std::string_view* text) {
  while (!text->empty() && (text->front() == ' ' || text->front() == '\t')) text->remove_prefix(1);
}

std::string TakeToken(std::string_view* text) {
  size_t length = 0;
  while (length < text->size() && IsTokenChar((*text)[length])) ++length;
  std::string token(text->substr(0, length));
  text->remove_prefix(length);
  return token;
}

std::string TakeQuoted(std::string_view* text) {
  std::string value;
  text->remove_prefix(1);
  while (!text->empty() && text->front() != '"') {
    if (text->front() == '\\' && text->size() > 1) text->remove_prefix(1);
    value.push_back(text->front());
    text->remove_prefix(1);
  }
  if (!text->empty()) text->remove_prefix(1);
  return value;
}

// One challenge, up to where the next one starts: a token that no "=" follows.
AuthChallenge TakeChallenge(std::string_view* text) {
  AuthChallenge challenge;
  challenge.scheme = Lower(TakeToken(text));
  for (;;) {
    text->remove_prefix(std::min(text->find_first_not_of(", \t"), text->size()));
    std::string_view ahead = *text;
    const std::string name = Lower(TakeToken(&ahead));
    SkipSpace(&ahead);
    if (name.empty() || ahead.empty() || ahead.front() != '=') return challenge;
    ahead.remove_prefix(1);
    SkipSpace(&ahead);
    std::string value =
        !ahead.empty() && ahead.front() == '"' ? TakeQuoted(&ahead) : TakeToken(&ahead);
    challenge.params.emplace(name, std::move(value));
    *text = ahead;
  }
}

bool EndsInDomain(const std::string& host, const std::string& domain) {
  return host.size() > domain.size() && domain.find('.') != std::string::npos &&
         host[host.size() - domain.size() - 1] == '.' &&
         host.compare(host.size() - domain.size(), domain.size(), domain) == 0;
}

bool IsIpLiteral(const http::Url& url) {
  return url.host.front() == '[' || url.host.find_first_not_of("0123456789.") == std::string::npos;
}

absl::Status AuthFailed(const std::string& message) {
  return ReasonError(absl::StatusCode::kPermissionDenied, "REGISTRY_AUTH_FAILED", message);
}

std::string ParamOf(const AuthChallenge& challenge, const char* name) {
  const auto it = challenge.params.find(name);
  return it == challenge.params.end() ? "" : it->second;
}

// The challenge's scope names the repository as the registry knows it (a proxy may prefix it), but
// whatever it asks for, the token is for pulling.
std::string PullScope(const std::string& challenge_scope, const std::string& repository) {
  constexpr std::string_view kPrefix = "repository:";
  std::string name = repository;
  const size_t last = challenge_scope.rfind(':');
  if (challenge_scope.compare(0, kPrefix.size(), kPrefix) == 0 && last > kPrefix.size() &&
      challenge_scope.find(' ') == std::string::npos)
    name = challenge_scope.substr(kPrefix.size(), last - kPrefix.size());
  return "repository:" + name + ":pull";
}

// Cuts out what `text` has in common with `secret`: all of it, or any 16 characters in a row.
void ScrubOne(const std::string& secret, std::string* text) {
  constexpr size_t kWindow = 16;
  constexpr size_t kShortest = 8;  // less may be a word, and cutting that out would tell more
  if (secret.size() < kShortest) return;
  const size_t window = std::min(kWindow, secret.size());
  for (size_t at = 0; at + window <= text->size();) {
    const size_t found = secret.find(text->substr(at, window));
    if (found == std::string::npos) {
      ++at;
      continue;
    }
    size_t length = window;
    while (at + length < text->size() && found + length < secret.size() &&
           (*text)[at + length] == secret[found + length])
      ++length;
    text->replace(at, length, "***");
    at += 3;
  }
}
}  // namespace

std::optional<AuthChallenge> ParseChallenge(std::string_view value) {
  std::optional<AuthChallenge> basic;
  while (!value.empty()) {
    SkipSpace(&value);
    if (value.empty()) break;
    const size_t before = value.size();
    AuthChallenge challenge = TakeChallenge(&value);
    if (challenge.scheme == "bearer") return challenge;
    if (challenge.scheme == "basic" && !basic) basic = std::move(challenge);
    if (value.size() == before) value.remove_prefix(1);  // a byte that starts nothing
  }
  return basic;
}

bool IsRealmBound(const RegistryEndpoint& endpoint, const http::Url& realm) {
  const std::string& registry = endpoint.origin.host;
  if (realm.host == registry) return true;
  if (endpoint.host == "docker.io" && realm.host == "auth.docker.io") return true;
  if (!IsIpLiteral(endpoint.origin) && EndsInDomain(registry, realm.host)) return true;
  const bool default_port = realm.port == (realm.scheme == "https" ? 443 : 80);
  return std::any_of(endpoint.token_hosts.begin(), endpoint.token_hosts.end(),
                     [&](const std::string& host) {
                       return host == realm.HostPort() || (default_port && host == realm.host);
                     });
}

std::string RegistryAuth::Scrub(std::string text) const {
  const std::string basic = absl::Base64Escape(endpoint_.username + ":" + endpoint_.password);
  std::vector<std::string> secrets = {endpoint_.password, endpoint_.identity_token,
                                      endpoint_.registry_token,
                                      http::PercentEncode(endpoint_.password)};
  if (!endpoint_.username.empty()) secrets.push_back(basic);
  {
    MutexLock lock(scrub_mutex_);
    secrets.push_back(last_token_);
  }
  for (const std::string& secret : secrets) ScrubOne(secret, &text);
  return text;
}

std::string RegistryAuth::BasicHeader() const {
  return "Basic " + absl::Base64Escape(endpoint_.username + ":" + endpoint_.password);
}

std::string RegistryAuth::Header() {
  MutexLock lock(mutex_);
  if (absl::Now() + kExpiryMargin >= expires_) {
    header_.clear();
    expires_ = absl::InfiniteFuture();
  }
  return header_;
}

absl::Status RegistryAuth::OnUnauthorized(const http::Response& response,
                                          const std::string& used_header, const StopFn& stop,
                                          std::string* retry_after) {
  const std::string& host = endpoint_.host;
  MutexLock lock(mutex_);
  if (!header_.empty() && header_ != used_header) return absl::OkStatus();  // another's new token
  header_.clear();
  if (!endpoint_.registry_token.empty()) {
    header_ = "Bearer " + endpoint_.registry_token;
    expires_ = absl::InfiniteFuture();
    if (header_ != used_header) return absl::OkStatus();
    return AuthFailed(host + " refuses the registrytoken of the docker config: renew it there");
  }
  const auto challenge = ParseChallenge(response.AllOf("www-authenticate"));
  if (!challenge) return AuthFailed(host + " refuses the request and does not say how to sign in");
  if (challenge->scheme == "bearer") return FetchToken(*challenge, stop, retry_after);
  return SignInBasic(used_header);
}

std::string RegistryAuth::Remedy() const {
  if (!endpoint_.login_name.empty()) {
    return "PUT a right one to /registry-credentials/" + endpoint_.login_name;
  }
  if (endpoint_.has_credentials()) {
    return "correct this registry's credentials in the agent's configuration";
  }
  return "store a registry credential and name it as the image's pull_secret, or add one to the "
         "agent's configuration";
}

absl::Status RegistryAuth::SignInBasic(const std::string& used_header) {
  const std::string& host = endpoint_.host;
  if (!endpoint_.identity_token.empty()) {
    return AuthFailed(host +
                      " wants a user name and a password where the docker config has an "
                      "identitytoken: put a user name and a password there");
  }
  if (endpoint_.username.empty()) {
    return AuthFailed(host + " wants a user name and a password: " + Remedy());
  }
  if (used_header == BasicHeader()) {
    return AuthFailed(host + " refuses the user name and password of " +
                      (endpoint_.login_name.empty()
                           ? "the agent's configuration"
                           : "the registry credential \"" + endpoint_.login_name + "\"") +
                      ": " + Remedy());
  }
  header_ = BasicHeader();
  expires_ = absl::InfiniteFuture();
  return absl::OkStatus();
}

absl::StatusOr<http::Request> RegistryAuth::TokenRequest(const AuthChallenge& challenge,
                                                         const StopFn& stop) {
  auto realm = http::ParseUrl(ParamOf(challenge, "realm"));
  if (!realm.ok()) {
    return AuthFailed(endpoint_.host + " names a token service that is no URL: " +
                      std::string(realm.status().message()));
  }
  if (realm->scheme == "http" && endpoint_.origin.scheme == "https") {
    return AuthFailed(endpoint_.host + " names a token service over plain http (" +
                      realm->HostPort() + "), which is refused: it must be https");
  }
  http::Request request;
  if (endpoint_.has_credentials()) {
    if (!IsRealmBound(endpoint_, *realm)) {
      return AuthFailed(endpoint_.host + " sends to the token service of another host (" +
                        realm->HostPort() +
                        "), which is not given the credentials: where that is "
                        "right, list it in token_hosts of this registry");
    }
  }
  std::string query;
  if (const std::string service = ParamOf(challenge, "service"); !service.empty())
    query = "service=" + http::PercentEncode(service) + "&";
  query += "scope=" + http::PercentEncode(PullScope(ParamOf(challenge, "scope"), repository_));
  request.url = realm->text;
  if (!endpoint_.identity_token.empty()) {
    request.method = "POST";
    request.headers.emplace_back("Content-Type", "application/x-www-form-urlencoded");
    request.body = query + "&grant_type=refresh_token&client_id=bunker-agent&refresh_token=" +
                   http::PercentEncode(endpoint_.identity_token);
  } else {
    request.url += (request.url.find('?') == std::string::npos ? "?" : "&") + query;
    if (!endpoint_.username.empty()) request.headers.emplace_back("Authorization", BasicHeader());
  }
  request.headers.emplace_back("Accept", "application/json");
  request.total_timeout = timeout_;
  request.max_redirects = 3;
  request.max_body_bytes = kMaxTokenBytes;
  request.stop = stop;
  return request;
}

absl::Status RegistryAuth::FetchToken(const AuthChallenge& challenge, const StopFn& stop,
                                      std::string* retry_after) {
  const auto scrub = [this](std::string text) { return Scrub(std::move(text)); };
  ASSIGN_OR_RETURN(const http::Request request, TokenRequest(challenge, stop));
  ASSIGN_OR_RETURN(const http::Url realm, http::ParseUrl(request.url));
  const std::string subject = "token service of " + endpoint_.host + " at " + realm.HostPort();
  const auto response = client_->Do(request);
  if (!response.ok()) return ErrorOfTransport(response.status(), subject);
  if (response->status == 200) return KeepToken(*response, realm);
  if (response->status / 100 == 4 && response->status != 429 && response->status != 408) {
    const std::string said = RegistryMessage(response->body, scrub);
    return AuthFailed(subject + " answered " + std::to_string(response->status) +
                      (said.empty() ? "" : " (" + said + ")") + ": " + Remedy());
  }
  *retry_after = response->Header("retry-after");
  return ErrorOfAnswer(*response, subject, scrub);
}

absl::Status RegistryAuth::KeepToken(const http::Response& response, const http::Url& realm) {
  const auto json = oci::ParseObject(response.body, "the token");
  std::string token;
  if (json.ok()) {
    token = oci::StringOf(*json, "token");
    if (token.empty()) token = oci::StringOf(*json, "access_token");
  }
  const bool usable = !token.empty() && std::all_of(token.begin(), token.end(),
                                                    [](char c) { return c > ' ' && c < 0x7f; });
  if (!usable) return AuthFailed("the token service at " + realm.HostPort() + " gave no token");
  const uint64_t life = oci::SizeOf(*json, "expires_in").value_or(kDefaultTokenLifeS);
  expires_ =
      absl::Now() + absl::Seconds(std::min(life == 0 ? kDefaultTokenLifeS : life, kMaxTokenLifeS));
  header_ = "Bearer " + token;
  MutexLock lock(scrub_mutex_);
  last_token_ = token;
  return absl::OkStatus();
}

}  // namespace bunker::agent
