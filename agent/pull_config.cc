#include "agent/pull_config.h"

#include <string>
#include <utility>

#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/http/proxy.h"

namespace bunker::agent {
namespace {
constexpr size_t kMaxSecretBytes = 64 * 1024;
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
    if (!from.password_file.empty()) {
      ASSIGN_OR_RETURN(to.password, ReadFile(from.password_file, kMaxSecretBytes));
      while (!to.password.empty() && to.password.back() == '\n') to.password.pop_back();
    }
    pull.registries.push_back(std::move(to));
  }
  pull.mirrors = config.mirrors;
  pull.tar_root = config.tar_root;
  pull.proxy = http::ProxyFromEnvironment();
  return pull;
}

}  // namespace bunker::agent
