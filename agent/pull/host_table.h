// What the configuration says of hosts: where a registry is fetched, and what any one hop may do.
// Thread-safe: immutable after Create().
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/pull/pull_types.h"
#include "common/http/http_client.h"
#include "common/http/url.h"
#include "common/oci/reference.h"

namespace bunker::agent {

// Where one registry's requests go and who asks.
struct RegistryEndpoint {
  std::string host;      // as in the ref, for messages
  std::string base_url;  // "https://registry-1.docker.io", without a trailing slash
  http::Url origin;      // of base_url
  std::string username;
  std::string password;
  std::string identity_token{};
  std::string registry_token{};
  std::vector<std::string> token_hosts;
  std::string login_name{};  // of the stored credential that it is; "": the configuration's

  bool has_credentials() const { return !username.empty() || !identity_token.empty(); }
};

class HostTable {
 public:
  static absl::StatusOr<HostTable> Create(const PullConfig& config);

  absl::StatusOr<RegistryEndpoint> EndpointOf(const oci::Reference& reference) const;
  // With an image's own login: the registry itself, never a mirror of it, since the login is for no
  // other host. REGISTRY_AUTH_FAILED where it is for another one.
  absl::StatusOr<RegistryEndpoint> EndpointOf(const oci::Reference& reference,
                                              const RegistryLogin& login) const;
  // For any URL that a pull comes to: registry, redirect or token service.
  http::HopPolicy PolicyOf(const http::Url& url) const;

 private:
  struct Row {
    http::HopPolicy policy;
    std::string username;
    std::string password;
    std::vector<std::string> token_hosts;
  };
  const Row* Find(const std::string& host_port) const;
  absl::Status AddRegistry(const RegistryConfig& registry);
  absl::Status AddCredential(RegistryCredential credential);
  absl::StatusOr<RegistryEndpoint> EndpointAt(const oci::Reference& reference,
                                              const std::string& base_url) const;
  void GiveCredentials(const std::string& repository, RegistryEndpoint* endpoint) const;
  absl::Status AddMirror(const std::string& host, const std::string& endpoint);
  std::string SchemeOf(const std::string& host_port) const;

  std::map<std::string, Row> rows_;             // by host:port
  std::map<std::string, std::string> mirrors_;  // registry host -> base URL
  std::vector<RegistryCredential> credentials_;
};

}  // namespace bunker::agent
