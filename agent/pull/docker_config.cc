#include "agent/pull/docker_config.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "common/base/converters.h"
#include "common/base/status_macros.h"
#include "common/oci/json_guard.h"
#include "common/oci/reference.h"
#include "nlohmann/json.hpp"

namespace bunker::agent {
namespace {
std::string Shown(std::string_view text) {
  std::string shown = "\"";
  for (const char c : text.substr(0, 120)) shown.push_back(c >= ' ' && c < 0x7f ? c : '?');
  return shown + "\"";
}

absl::Status NoHelpers(const std::string& program) {
  return absl::InvalidArgumentError(
      "it names the credential helper " + Shown(program) +
      ", a program, which the agent never "
      "runs: remove credsStore and credHelpers, and put the registry's credentials under auths, or "
      "into images.registry of the agent's configuration");
}

absl::Status CheckHelpers(const nlohmann::json& json) {
  if (const std::string store = oci::StringOf(json, "credsStore"); !store.empty())
    return NoHelpers(store);
  const nlohmann::json* helpers = oci::MemberOf(json, "credHelpers");
  if (helpers == nullptr || helpers->empty()) return absl::OkStatus();
  if (!helpers->is_object()) return absl::InvalidArgumentError("credHelpers is not an object");
  const nlohmann::json& first = *helpers->begin();
  return NoHelpers(first.is_string() ? first.get<std::string>() : "");
}

// "https://index.docker.io/v1/" → docker.io; "r.example:5000/team/app" → that host and path.
absl::Status ReadKey(std::string_view key, RegistryCredential* credential) {
  const size_t scheme = key.find("://");
  const bool url = scheme != std::string_view::npos;
  if (url) key.remove_prefix(scheme + 3);
  const size_t slash = std::min(key.find('/'), key.size());
  auto host = oci::ParseRegistryHost(key.substr(0, slash));
  if (!host.ok()) return host.status();
  credential->host = *std::move(host);
  std::string_view path = key.substr(slash);
  while (!path.empty() && path.front() == '/') path.remove_prefix(1);
  while (!path.empty() && path.back() == '/') path.remove_suffix(1);
  const bool api = path == "v1" || path == "v2";  // Docker's own keys end in it
  if (!url && !api) credential->repository_prefix = std::string(path);
  return absl::OkStatus();
}

// base64 of "user:password". Old clients padded the password with NULs.
absl::Status ReadAuth(const std::string& auth, RegistryCredential* credential) {
  std::string decoded;
  if (!absl::Base64Unescape(auth, &decoded))
    return absl::InvalidArgumentError("its auth is not base64");
  while (!decoded.empty() && decoded.back() == '\0') decoded.pop_back();
  const size_t colon = decoded.find(':');
  if (colon == std::string::npos || colon == 0)
    return absl::InvalidArgumentError("its auth does not hold user:password");
  credential->username = decoded.substr(0, colon);
  credential->password = decoded.substr(colon + 1);
  return absl::OkStatus();
}

absl::StatusOr<RegistryCredential> ReadEntry(const std::string& key, const nlohmann::json& entry) {
  RegistryCredential credential;
  RETURN_IF_ERROR(ReadKey(key, &credential));
  if (!entry.is_object()) return absl::InvalidArgumentError("it is not an object");
  if (const std::string auth = oci::StringOf(entry, "auth"); !auth.empty()) {
    RETURN_IF_ERROR(ReadAuth(auth, &credential));
  } else {
    credential.username = oci::StringOf(entry, "username");
    credential.password = oci::StringOf(entry, "password");
    if (credential.username.find(':') != std::string::npos)
      return absl::InvalidArgumentError("its username holds a colon");
  }
  credential.identity_token = oci::StringOf(entry, "identitytoken");
  credential.registry_token = oci::StringOf(entry, "registrytoken");
  return credential;
}

absl::StatusOr<std::vector<RegistryCredential>> Read(std::string_view text) {
  if (text.size() > kMaxDockerConfigBytes)
    return absl::InvalidArgumentError("it is larger than 1 MiB");
  ASSIGN_OR_RETURN(const nlohmann::json json, oci::ParseObject(text, "it"));
  RETURN_IF_ERROR(CheckHelpers(json));
  std::vector<RegistryCredential> credentials;
  const nlohmann::json* auths = oci::MemberOf(json, "auths");
  if (auths == nullptr) return credentials;
  if (!auths->is_object()) return absl::InvalidArgumentError("auths is not an object");
  for (const auto& [key, entry] : auths->items()) {
    auto credential = ReadEntry(key, entry);
    if (!credential.ok()) {
      return absl::InvalidArgumentError("auths " + Shown(key) + ": " +
                                        std::string(credential.status().message()));
    }
    // An entry without anything is what a client leaves after a logout.
    const bool empty = credential->username.empty() && credential->identity_token.empty() &&
                       credential->registry_token.empty();
    if (!empty) credentials.push_back(*std::move(credential));
  }
  return credentials;
}
}  // namespace

absl::StatusOr<std::vector<RegistryCredential>> ParseDockerConfig(std::string_view text,
                                                                  std::string_view origin) {
  auto credentials = Read(text);
  if (credentials.ok()) return credentials;
  return absl::InvalidArgumentError("docker config " + std::string(origin) + ": " +
                                    std::string(credentials.status().message()));
}

}  // namespace bunker::agent
