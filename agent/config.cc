#include "agent/config.h"

#include <toml++/toml.h>
#include <unistd.h>

#include <utility>

#include "agent/net/name_set.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/config/strict_table.h"

namespace bunker::agent {
namespace {

constexpr size_t kMaxConfigBytes = 1 << 20;
constexpr uint32_t kMaxUid = 4'000'000'000u;

absl::Status ReadController(const toml::table& table, AgentConfig* config) {
  StrictTable in(table, "controller");
  in.Read("address", &config->controller_address);
  in.Read("tls", &config->controller_tls);
  in.Read("ca_file", &config->controller_ca_file);
  return in.Finish();
}

absl::Status ReadWorker(const toml::table& table, AgentConfig* config) {
  StrictTable in(table, "worker");
  in.Read("name", &config->worker_name);
  in.Read("labels", &config->labels);
  in.Read("cpu_millicores", &config->cpu_millicores, 0u, 10'000'000u);
  in.Read("memory_mb", &config->memory_mb, 0u, 100'000'000u);
  in.Read("disk_mb", &config->disk_mb, uint64_t{0}, uint64_t{1} << 40);
  return in.Finish();
}

absl::Status ReadState(const toml::table& table, AgentConfig* config) {
  StrictTable in(table, "state");
  in.Read("dir", &config->state_dir);
  in.Read("join_token_file", &config->join_token_file);
  return in.Finish();
}

absl::Status ReadRegistry(const toml::table& table, AgentConfig* config) {
  RegistrySettings registry;
  StrictTable in(table, "images.registry");
  in.Read("host", &registry.host);
  in.Read("insecure_http", &registry.insecure_http);
  in.Read("ca_file", &registry.ca_file);
  in.Read("username", &registry.username);
  in.Read("password_file", &registry.password_file);
  in.Read("allow_address", &registry.allow_address);
  in.Read("token_hosts", &registry.token_hosts);
  RETURN_IF_ERROR(in.Finish());
  if (registry.host.empty())
    return absl::InvalidArgumentError("config option images.registry.host is missing");
  config->registries.push_back(std::move(registry));
  return absl::OkStatus();
}

absl::Status ReadImages(const toml::table& table, AgentConfig* config) {
  StrictTable in(table, "images");
  in.Read("tar_root", &config->tar_root);
  in.Read("bake_uid", &config->bake_uid, 1u, kMaxUid);
  in.Read("bake_deadline_s", &config->bake_deadline_s, 10u, 86'400u);
  in.Read("bake_cpu_s", &config->bake_cpu_s, 5u, 86'400u);
  in.Read("bake_memory_mib", &config->bake_memory_mib, 256u, 1u << 20);
  in.Read("bake_max_members", &config->bake_max_members, uint64_t{1}, uint64_t{100'000'000});
  in.Read("bake_max_ratio", &config->bake_max_ratio, 2u, 100'000u);
  in.Read("concurrent_jobs", &config->concurrent_image_jobs, 1u, 64u);
  in.Read("cache_high_percent", &config->cache_high_percent, 2u, 100u);
  in.Read("cache_low_percent", &config->cache_low_percent, 1u, 99u);
  in.Read("disk_check_s", &config->disk_check_s, 1u, 3600u);
  in.Read("mirrors", &config->mirrors);
  in.Read("docker_config", &config->docker_config);
  in.Read("fetches_per_registry", &config->fetches_per_registry, 1u, 64u);
  in.Read("fetches", &config->fetches, 1u, 256u);
  for (const toml::table* registry : in.Tables("registry"))
    RETURN_IF_ERROR(ReadRegistry(*registry, config));
  RETURN_IF_ERROR(in.Finish());
  if (config->cache_low_percent >= config->cache_high_percent) {
    return absl::InvalidArgumentError(
        "config option images.cache_low_percent must be less than images.cache_high_percent");
  }
  return absl::OkStatus();
}

absl::Status ReadVm(const toml::table& table, AgentConfig* config) {
  StrictTable in(table, "vm");
  in.Read("qemu", &config->qemu);
  in.Read("accelerator", &config->accelerator);
  in.Read("kernel", &config->kernel);
  in.Read("initrd", &config->initrd);
  in.Read("uid_base", &config->uid_base, 1000u, kMaxUid);
  in.Read("uid_count", &config->uid_count, 1u, 1'000'000u);
  in.Read("concurrent_starts", &config->concurrent_starts, 0u, 64u);
  in.Read("boot_deadline_s", &config->boot_deadline_s, 1u, 3600u);
  in.Read("start_burst_ms", &config->start_burst_ms, 0u, 10'000u);
  in.Read("template_max", &config->template_max, 0u, 1024u);
  in.Read("pool_max", &config->pool_max, 0u, 1024u);
  in.Read("pool_memory_mb", &config->pool_memory_mb, 0u, 1u << 24);
  in.Read("template_memory_mb", &config->template_memory_mb, 64u, 1u << 24);
  in.Read("cgroups", &config->cgroups);
  in.Read("usage_period_s", &config->usage_period_s, 1u, 3600u);
  RETURN_IF_ERROR(in.Finish());
  if (config->accelerator != "auto" && config->accelerator != "kvm" && config->accelerator != "tcg")
    return absl::InvalidArgumentError("config option vm.accelerator must be auto, kvm or tcg");
  if (config->cgroups != "auto" && config->cgroups != "required" && config->cgroups != "off")
    return absl::InvalidArgumentError("config option vm.cgroups must be auto, required or off");
  return absl::OkStatus();
}

absl::Status ReadScan(const toml::table& table, AgentConfig* config) {
  StrictTable in(table, "scan");
  uint32_t uid = config->scan.uid;
  uint32_t memory_mib = static_cast<uint32_t>(config->scan.memory_bytes >> 20);
  uint32_t deadline_s = static_cast<uint32_t>(absl::ToInt64Seconds(config->scan.deadline));
  in.Read("scanner", &config->scan.scanner);
  in.Read("command", &config->scan.command);
  in.Read("source", &config->scan.source);
  in.Read("cache_dir", &config->scan.cache_dir);
  in.Read("network", &config->scan.network);
  in.Read("uid", &uid, 1u, kMaxUid);
  in.Read("memory_mib", &memory_mib, 64u, 1u << 20);
  in.Read("cpu_s", &config->scan.cpu_seconds, 1u, 86'400u);
  in.Read("deadline_s", &deadline_s, 1u, 86'400u);
  RETURN_IF_ERROR(in.Finish());
  config->scan.uid = uid;
  config->scan.memory_bytes = uint64_t{memory_mib} << 20;
  config->scan.deadline = absl::Seconds(deadline_s);
  return MakeScanner(config->scan).status();
}

absl::Status ReadNetwork(const toml::table& table, AgentConfig* config) {
  StrictTable in(table, "network");
  in.Read("package_registries", &config->package_registries);
  in.Read("egress_ports", &config->egress_ports);
  in.Read("egress_deny", &config->egress_deny);
  in.Read("egress_allow", &config->egress_allow);
  in.Read("uplinks", &config->uplinks);
  in.Read("guard_uid", &config->guard_uid, 1u, kMaxUid);
  in.Read("bridges", &config->bridges);
  RETURN_IF_ERROR(in.Finish());
  for (const uint32_t port : config->egress_ports) {
    if (port == 0 || port > 65535)
      return absl::InvalidArgumentError("config option network.egress_ports: ports are 1 to 65535");
  }
  if (config->egress_ports.empty())
    return absl::InvalidArgumentError("config option network.egress_ports must name a port");
  for (const std::string& name : config->package_registries) {
    if (NameSet({name}).empty()) {
      return absl::InvalidArgumentError("config option network.package_registries: '" + name +
                                        "' is no host name, nor *. before one");
    }
  }
  for (const std::string& name : config->bridges) {
    if (!IsDeviceName(name)) {
      return absl::InvalidArgumentError("config option network.bridges: '" + name +
                                        "' is no name of a network device");
    }
  }
  return BunkerNetworks::Create(NetworkOptionsOf(*config)).status();
}

std::string HostName() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "worker";
}

}  // namespace

NetworkOptions NetworkOptionsOf(const AgentConfig& config) {
  NetworkOptions options;
  options.registry_names = config.package_registries;
  options.ports.assign(config.egress_ports.begin(), config.egress_ports.end());
  options.refused = config.egress_deny.empty() ? DefaultRefusedRanges() : config.egress_deny;
  options.exempt = config.egress_allow;
  options.uplinks = config.uplinks;
  options.slots = config.uid_count;
  options.guard_uid = config.guard_uid;
  options.state_dir = config.state_dir;
  options.bridges = config.bridges;
  return options;
}

absl::StatusOr<AgentConfig> ParseAgentConfig(const std::string& text, const std::string& origin) {
  toml::table root;
  RETURN_IF_ERROR(ParseToml(text, origin, &root));
  AgentConfig config;
  StrictTable in(root, "");
  const std::pair<const char*, absl::Status (*)(const toml::table&, AgentConfig*)> sections[] = {
      {"controller", ReadController},
      {"worker", ReadWorker},
      {"state", ReadState},
      {"images", ReadImages},
      {"vm", ReadVm},
      {"network", ReadNetwork},
      {"scan", ReadScan}};
  for (const auto& [name, read] : sections) {
    if (const toml::table* table = in.Table(name)) RETURN_IF_ERROR(read(*table, &config));
  }
  RETURN_IF_ERROR(in.Finish());
  if (config.worker_name.empty()) config.worker_name = HostName();
  if (config.state_dir.empty() || config.state_dir[0] != '/')
    return absl::InvalidArgumentError("config option state.dir must be an absolute path");
  return config;
}

absl::StatusOr<AgentConfig> LoadAgentConfig(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
  return ParseAgentConfig(text, path);
}

}  // namespace bunker::agent
