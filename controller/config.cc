#include "controller/config.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <toml++/toml.h>

#include <utility>

#include <fmt/format.h>

#include "absl/strings/numbers.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/config/strict_table.h"

namespace bunker::controller {
namespace {

constexpr size_t kMaxConfigBytes = 1 << 20;

absl::Status Wrong(std::string_view option, std::string_view what) {
  return absl::InvalidArgumentError(fmt::format("config option {}: {}", option, what));
}

absl::Status ReadAddress(StrictTable& in, const std::string& option, HostPort* value) {
  std::string text;
  in.Read("address", &text);
  if (text.empty()) return absl::OkStatus();
  auto parsed = ParseHostPort(text);
  if (!parsed.ok()) return Wrong(option, std::string(parsed.status().message()));
  *value = *std::move(parsed);
  return absl::OkStatus();
}

absl::Status CheckTls(std::string_view section, const std::string& certificate,
                      const std::string& key) {
  if (certificate.empty() == key.empty()) return absl::OkStatus();
  return Wrong(fmt::format("{}.tls_certificate", section),
               fmt::format("needs {}.tls_key beside it; name both files or neither", section));
}

absl::Status ReadState(const toml::table& table, ControllerConfig* config) {
  StrictTable in(table, "state");
  in.Read("dir", &config->state_dir);
  RETURN_IF_ERROR(in.Finish());
  if (config->state_dir.empty() || config->state_dir[0] != '/')
    return Wrong("state.dir", "must be an absolute path");
  return absl::OkStatus();
}

absl::Status ReadRest(const toml::table& table, ControllerConfig* config) {
  StrictTable in(table, "rest");
  RETURN_IF_ERROR(ReadAddress(in, "rest.address", &config->rest));
  in.Read("tls_certificate", &config->rest_tls_certificate);
  in.Read("tls_key", &config->rest_tls_key);
  in.Read("max_connections", &config->rest_max_connections, 1u, 1'000'000u);
  in.Read("max_connections_per_ip", &config->rest_max_connections_per_ip, 1u, 1'000'000u);
  in.Read("allowed_origins", &config->allowed_origins);
  RETURN_IF_ERROR(in.Finish());
  return CheckTls("rest", config->rest_tls_certificate, config->rest_tls_key);
}

absl::Status ReadGrpc(const toml::table& table, ControllerConfig* config) {
  StrictTable in(table, "grpc");
  RETURN_IF_ERROR(ReadAddress(in, "grpc.address", &config->grpc));
  in.Read("tls_certificate", &config->grpc_tls_certificate);
  in.Read("tls_key", &config->grpc_tls_key);
  RETURN_IF_ERROR(in.Finish());
  return CheckTls("grpc", config->grpc_tls_certificate, config->grpc_tls_key);
}

absl::Status ReadMetrics(const toml::table& table, ControllerConfig* config) {
  StrictTable in(table, "metrics");
  RETURN_IF_ERROR(ReadAddress(in, "metrics.address", &config->metrics));
  config->metrics_set = true;
  return in.Finish();
}

absl::Status ReadAdmin(const toml::table& table, ControllerConfig* config) {
  StrictTable in(table, "admin");
  in.Read("socket", &config->admin_socket);
  RETURN_IF_ERROR(in.Finish());
  if (config->admin_socket.empty() || config->admin_socket[0] != '/')
    return Wrong("admin.socket", "must be an absolute path");
  return absl::OkStatus();
}

absl::Status ReadLimits(const toml::table& table, ControllerConfig* config) {
  StrictTable in(table, "limits");
  in.Read("requests_per_s", &config->requests_per_s, 0.1, 1e6);
  in.Read("request_burst", &config->request_burst, 1.0, 1e6);
  return in.Finish();
}

absl::Status ReadPlacement(const toml::table& table, ControllerConfig* config) {
  StrictTable in(table, "placement");
  in.Read("cpu_overcommit", &config->cpu_overcommit, 0.1, 64.0);
  in.Read("memory_reserve_mb", &config->memory_reserve_mb, uint64_t{0}, uint64_t{1} << 32);
  in.Read("disk_reserve_mb", &config->disk_reserve_mb, uint64_t{0}, uint64_t{1} << 40);
  in.Read("strategy", &config->placement_strategy);
  RETURN_IF_ERROR(in.Finish());
  if (config->placement_strategy != "spread" && config->placement_strategy != "pack")
    return Wrong("placement.strategy", "must be \"spread\" or \"pack\"");
  return absl::OkStatus();
}

absl::Status ReadWorkers(const toml::table& table, ControllerConfig* config) {
  StrictTable in(table, "workers");
  in.Read("offline_after_s", &config->offline_after_s, 1u, 86'400u);
  in.Read("lost_after_s", &config->lost_after_s, 1u, 30u * 86'400u);
  RETURN_IF_ERROR(in.Finish());
  if (config->lost_after_s <= config->offline_after_s)
    return Wrong("workers.lost_after_s", "must be more than workers.offline_after_s");
  return absl::OkStatus();
}

absl::Status ReadImages(const toml::table& table, ControllerConfig* config) {
  StrictTable in(table, "images");
  in.Read("sweep_interval_s", &config->sweep_interval_s, 1u, 86'400u);
  in.Read("tag_check_interval_s", &config->tag_check_interval_s, 1u, 30u * 86'400u);
  in.Read("modelarts_size_mib", &config->modelarts_size_mib, 16u, 1'048'576u);
  in.Read("builds_per_registry", &config->builds_per_registry, 0u, 1'000'000u);
  in.Read("builds_per_worker", &config->builds_per_worker, 0u, 1'000u);
  in.Read("retry_base_s", &config->retry_base_s, 1u, 3'600u);
  in.Read("retry_max_s", &config->retry_max_s, 1u, 86'400u);
  in.Read("pending_deadline_s", &config->pending_deadline_s, 1u, 86'400u);
  in.Read("stall_deadline_s", &config->stall_deadline_s, 1u, 86'400u);
  in.Read("keep_unused_s", &config->keep_unused_s, 0u, 365u * 86'400u);
  for (const toml::table* registry : in.Tables("registry")) {
    StrictTable row(*registry, "images.registry");
    std::string host;
    uint32_t builds = 0;
    row.Read("host", &host);
    row.Read("builds", &builds, 1u, 1'000'000u);
    RETURN_IF_ERROR(row.Finish());
    if (host.empty() || builds == 0) return Wrong("images.registry", "needs host and builds");
    config->registry_builds[host] = builds;
  }
  RETURN_IF_ERROR(in.Finish());
  if (config->retry_max_s < config->retry_base_s)
    return Wrong("images.retry_max_s", "must be at least images.retry_base_s");
  return absl::OkStatus();
}

absl::Status ReadAudit(const toml::table& table, ControllerConfig* config) {
  StrictTable in(table, "audit");
  in.Read("retention_days", &config->audit_retention_days, 0u, 36'500u);
  return in.Finish();
}

absl::Status ReadScan(const toml::table& table, ControllerConfig* config) {
  StrictTable in(table, "scan");
  in.Read("advisories", &config->scan_advisories);
  in.Read("interval_s", &config->scan_interval_s, 1u, 86'400u);
  in.Read("max_age_s", &config->scan_max_age_s, 60u, 365u * 86'400u);
  in.Read("deadline_s", &config->scan_deadline_s, 10u, 86'400u);
  in.Read("unknown_fails", &config->scan_unknown_fails);
  in.Read("gate", &config->scan_gate);
  RETURN_IF_ERROR(in.Finish());
  if (!config->scan_advisories.empty() && config->scan_advisories[0] != '/')
    return Wrong("scan.advisories", "must be an absolute path");
  if (config->scan_gate != "off" && config->scan_gate != "failed" &&
      config->scan_gate != "unscanned")
    return Wrong("scan.gate", "must be off, failed or unscanned");
  return absl::OkStatus();
}

absl::Status ReadSnapshots(const toml::table& table, ControllerConfig* config) {
  StrictTable in(table, "snapshots");
  in.Read("per_tenant", &config->snapshots_per_tenant, 0u, 1'000'000u);
  in.Read("mib_per_tenant", &config->snapshot_mib_per_tenant, uint64_t{0}, uint64_t{1} << 40);
  in.Read("deadline_s", &config->snapshot_deadline_s, 10u, 86'400u);
  return in.Finish();
}

absl::Status ReadNetwork(const toml::table& table, ControllerConfig*) {
  StrictTable in(table, "network");
  std::vector<std::string> package_registries;
  in.Read("package_registries", &package_registries);
  RETURN_IF_ERROR(in.Finish());
  if (package_registries.empty()) return absl::OkStatus();
  return Wrong("network.package_registries",
               "must be empty: the list is each worker's own; move the entries to "
               "network.package_registries in the agents' configuration");
}

absl::Status CheckWhole(const ControllerConfig& config) {
  if (!config.grpc.is_loopback() && config.grpc_tls_certificate.empty()) {
    return Wrong("grpc.address", "is not on loopback, so grpc.tls_certificate and grpc.tls_key are "
                                 "needed: credentials never travel in plain text");
  }
  return absl::OkStatus();
}

}  // namespace

std::string HostPort::ToString() const {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port)
                                             : fmt::format("[{}]:{}", host, port);
}

bool HostPort::is_loopback() const { return host == "::1" || host.rfind("127.", 0) == 0; }

absl::StatusOr<HostPort> ParseHostPort(const std::string& text) {
  const size_t colon = text.rfind(':');
  HostPort result;
  uint32_t port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(text.substr(colon + 1), &port) ||
      port > 65535)
    return absl::InvalidArgumentError("must be ADDRESS:PORT, such as 127.0.0.1:8080");
  result.port = static_cast<uint16_t>(port);
  result.host = text.substr(0, colon);
  const bool bracketed =
      result.host.size() > 2 && result.host.front() == '[' && result.host.back() == ']';
  if (bracketed) result.host = result.host.substr(1, result.host.size() - 2);
  in6_addr scratch{};
  const int family = bracketed ? AF_INET6 : AF_INET;
  if (::inet_pton(family, result.host.c_str(), &scratch) != 1)
    return absl::InvalidArgumentError(
        "needs an IP address before the port, such as 127.0.0.1:8080 or [::1]:8080");
  return result;
}

absl::StatusOr<ControllerConfig> ParseControllerConfig(const std::string& text,
                                                       const std::string& origin) {
  toml::table root;
  RETURN_IF_ERROR(ParseToml(text, origin, &root));
  ControllerConfig config;
  StrictTable in(root, "");
  const std::pair<const char*, absl::Status (*)(const toml::table&, ControllerConfig*)> sections[] =
      {{"state", ReadState},         {"rest", ReadRest},       {"grpc", ReadGrpc},
       {"admin", ReadAdmin},         {"metrics", ReadMetrics}, {"limits", ReadLimits},
       {"placement", ReadPlacement}, {"workers", ReadWorkers}, {"images", ReadImages},
       {"network", ReadNetwork},     {"audit", ReadAudit},     {"scan", ReadScan},
       {"snapshots", ReadSnapshots}};
  for (const auto& [name, read] : sections) {
    if (const toml::table* table = in.Table(name)) RETURN_IF_ERROR(read(*table, &config));
  }
  RETURN_IF_ERROR(in.Finish());
  RETURN_IF_ERROR(CheckWhole(config));
  return config;
}

absl::StatusOr<ControllerConfig> LoadControllerConfig(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
  return ParseControllerConfig(text, path);
}

}  // namespace bunker::controller
