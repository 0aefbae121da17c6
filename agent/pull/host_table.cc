#include "agent/pull/host_table.h"

#include "common/base/converters.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/http/address_filter.h"

namespace bunker::agent {
namespace {
absl::Status Annotated(const absl::Status& status, const std::string& where) {
  return absl::InvalidArgumentError(where + ": " + std::string(status.message()));
}

std::string BareHostOf(const std::string& host_port) {
  if (!host_port.empty() && host_port.front() == '[')
    return host_port.substr(1, host_port.find(']') - 1);
  return host_port.substr(0, host_port.find(':'));
}

// Docker Hub is reached under another name than it has in refs.
std::string EndpointHost(const std::string& host) {
  return oci::Reference{.host = host, .repository = "", .tag = "", .digest = {}}.Endpoint();
}
}  // namespace

absl::StatusOr<HostTable> HostTable::Create(const PullConfig& config) {
  HostTable table;
  for (const RegistryConfig& registry : config.registries)
    RETURN_IF_ERROR(table.AddRegistry(registry));
  for (const auto& [host, endpoint] : config.mirrors)
    RETURN_IF_ERROR(table.AddMirror(host, endpoint));
  for (const RegistryCredential& credential : config.credentials)
    RETURN_IF_ERROR(table.AddCredential(credential));
  return table;
}

absl::Status HostTable::AddRegistry(const RegistryConfig& registry) {
  const auto host = oci::ParseRegistryHost(registry.host);
  if (!host.ok()) return Annotated(host.status(), "registries");
  if (registry.username.find(':') != std::string::npos)
    return absl::InvalidArgumentError("registry " + *host + ": its username holds a colon");
  const bool loopback = http::IsLoopbackHost(BareHostOf(*host));
  Row row;
  row.policy.plain_http = registry.insecure_http || (loopback && registry.ca_file.empty());
  row.policy.any_address = registry.allow_addresses;
  row.policy.ca_file = registry.ca_file;
  Row token_row = row;  // its token services share the policy, never the credentials
  row.username = registry.username;
  row.password = registry.password;
  for (const std::string& token_host : registry.token_hosts) {
    const auto parsed = oci::ParseRegistryHost(token_host);
    if (!parsed.ok()) return Annotated(parsed.status(), "token_hosts of " + *host);
    row.token_hosts.push_back(*parsed);
    rows_.emplace(EndpointHost(*parsed), token_row);
  }
  rows_.insert_or_assign(EndpointHost(*host), std::move(row));
  return absl::OkStatus();
}

absl::Status HostTable::AddCredential(RegistryCredential credential) {
  const auto host = oci::ParseRegistryHost(credential.host);
  if (!host.ok()) return Annotated(host.status(), "credentials");
  credential.host = EndpointHost(*host);
  credentials_.push_back(std::move(credential));
  return absl::OkStatus();
}

absl::Status HostTable::AddMirror(const std::string& host, const std::string& endpoint) {
  const auto from = oci::ParseRegistryHost(host);
  if (!from.ok()) return Annotated(from.status(), "mirrors");
  std::string base = endpoint;
  if (base.find("://") == std::string::npos) {
    const auto to = oci::ParseRegistryHost(endpoint);
    if (!to.ok()) return Annotated(to.status(), "mirrors of " + host);
    base = SchemeOf(*to) + "://" + *to;
  }
  while (!base.empty() && base.back() == '/') base.pop_back();
  const auto url = http::ParseUrl(base);
  if (!url.ok()) return Annotated(url.status(), "mirrors of " + host);
  // The operator named it, so it may lie anywhere and speak what its URL says.
  const Row* known = Find(url->HostPort());
  Row row = known != nullptr ? *known : Row();
  row.policy.any_address = true;
  row.policy.plain_http = row.policy.plain_http || url->scheme == "http";
  rows_.insert_or_assign(url->HostPort(), std::move(row));
  mirrors_.insert_or_assign(*from, base);
  return absl::OkStatus();
}

const HostTable::Row* HostTable::Find(const std::string& host_port) const {
  if (const auto it = rows_.find(host_port); it != rows_.end()) return &it->second;
  // An entry without a port stands for the two default ports.
  for (const std::string_view port : {":443", ":80"}) {
    if (host_port.size() <= port.size() || !std::string_view(host_port).ends_with(port)) continue;
    const auto it = rows_.find(host_port.substr(0, host_port.size() - port.size()));
    if (it != rows_.end()) return &it->second;
  }
  return nullptr;
}

std::string HostTable::SchemeOf(const std::string& host_port) const {
  const Row* row = Find(host_port);
  if (row != nullptr) return row->policy.plain_http ? "http" : "https";
  return http::IsLoopbackHost(BareHostOf(host_port)) ? "http" : "https";
}

void HostTable::GiveCredentials(const std::string& repository, RegistryEndpoint* endpoint) const {
  const http::Url& origin = endpoint->origin;
  const bool default_port = origin.port == (origin.scheme == "https" ? 443 : 80);
  const RegistryCredential* best = nullptr;
  for (const RegistryCredential& credential : credentials_) {
    const bool right_host =
        credential.host == origin.HostPort() || (default_port && credential.host == origin.host);
    const std::string& prefix = credential.repository_prefix;
    const bool covers = prefix.empty() || repository == prefix ||
                        repository.compare(0, prefix.size() + 1, prefix + "/") == 0;
    if (!right_host || !covers) continue;
    if (best == nullptr || prefix.size() > best->repository_prefix.size()) best = &credential;
  }
  if (best == nullptr) return;
  endpoint->username = best->username;
  endpoint->password = best->password;
  endpoint->identity_token = best->identity_token;
  endpoint->registry_token = best->registry_token;
}

absl::StatusOr<RegistryEndpoint> HostTable::EndpointOf(const oci::Reference& reference) const {
  if (const auto it = mirrors_.find(reference.host); it != mirrors_.end())
    return EndpointAt(reference, it->second);
  const std::string host = reference.Endpoint();
  return EndpointAt(reference, SchemeOf(host) + "://" + host);
}

absl::StatusOr<RegistryEndpoint> HostTable::EndpointOf(const oci::Reference& reference,
                                                       const RegistryLogin& login) const {
  if (login.host != reference.host) {
    return ReasonError(absl::StatusCode::kPermissionDenied, "REGISTRY_AUTH_FAILED",
                       "the registry credential \"" + login.name + "\" is for " + login.host +
                           ", not for " + reference.host + ": name one for that registry");
  }
  const std::string host = reference.Endpoint();
  ASSIGN_OR_RETURN(RegistryEndpoint endpoint, EndpointAt(reference, SchemeOf(host) + "://" + host));
  endpoint.username = login.username;
  endpoint.password = login.password;
  endpoint.identity_token.clear();
  endpoint.registry_token.clear();
  endpoint.login_name = login.name;
  return endpoint;
}

absl::StatusOr<RegistryEndpoint> HostTable::EndpointAt(const oci::Reference& reference,
                                                       const std::string& base_url) const {
  RegistryEndpoint endpoint;
  endpoint.host = reference.host;
  endpoint.base_url = base_url;
  ASSIGN_OR_RETURN(endpoint.origin, http::ParseUrl(endpoint.base_url));
  if (const Row* row = Find(endpoint.origin.HostPort())) {
    endpoint.username = row->username;
    endpoint.password = row->password;
    endpoint.token_hosts = row->token_hosts;
  }
  if (endpoint.username.empty()) GiveCredentials(reference.repository, &endpoint);
  return endpoint;
}

http::HopPolicy HostTable::PolicyOf(const http::Url& url) const {
  if (const Row* row = Find(url.HostPort())) return row->policy;
  http::HopPolicy policy;
  policy.plain_http = http::IsLoopbackHost(url.BareHost());
  return policy;
}

}  // namespace bunker::agent
