#include "agent/pull_config.h"

#include <string>
#include <utility>

#include "agent/pull/docker_config.h"
#include "common/base/files.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/http/proxy.h"

namespace bunker::agent {
namespace {
constexpr size_t kMaxSecretBytes = 64 * 1024;

// A password, or a key of one line such as `_json_key` takes: the file's content less the line's
// end that editors put there.
absl::StatusOr<std::string> ReadSecret(const std::string& path) {
  auto secret = ReadFile(path, kMaxSecretBytes);
  if (!secret.ok()) return Annotate(secret.status(), "images.registry.password_file");
  while (!secret->empty() && (secret->back() == '\n' || secret->back() == '\r')) secret->pop_back();
  if (secret->empty())
    return absl::InvalidArgumentError("images.registry.password_file " + path + " is empty");
  return secret;
}

// A missing authority would show at the first pull only, as a failure of the registry's.
absl::Status CheckAuthorities(const std::string& path) {
  if (path.empty()) return absl::OkStatus();
  const auto text = ReadFile(path, 16u << 20);
  if (!text.ok()) return Annotate(text.status(), "images.registry.ca_file");
  if (text->find("-----BEGIN CERTIFICATE-----") != std::string::npos) return absl::OkStatus();
  return absl::InvalidArgumentError("images.registry.ca_file " + path +
                                    " holds no certificate in PEM form");
}
}  // namespace

absl::StatusOr<PullConfig> PullConfigOf(const AgentConfig& config) {
  PullConfig pull;
  for (const RegistrySettings& from : config.registries) {
    RegistryConfig to;
    to.host = from.host;
    to.insecure_http = from.insecure_http;
    to.ca_file = from.ca_file;
    to.username = from.username;
    to.allow_addresses = from.allow_address;
    to.token_hosts = from.token_hosts;
    RETURN_IF_ERROR(CheckAuthorities(from.ca_file));
    if (!from.password_file.empty()) {
      ASSIGN_OR_RETURN(to.password, ReadSecret(from.password_file));
    }
    pull.registries.push_back(std::move(to));
  }
  pull.mirrors = config.mirrors;
  if (!config.docker_config.empty()) {
    auto text = ReadFile(config.docker_config, kMaxDockerConfigBytes);
    if (!text.ok()) return Annotate(text.status(), "images.docker_config");
    ASSIGN_OR_RETURN(pull.credentials, ParseDockerConfig(*text, config.docker_config));
  }
  pull.fetches_per_registry = config.fetches_per_registry;
  pull.fetches_in_all = config.fetches;
  pull.tar_root = config.tar_root;
  pull.scratch_dir = config.state_dir;
  pull.proxy = http::ProxyFromEnvironment();
  return pull;
}

}  // namespace bunker::agent
