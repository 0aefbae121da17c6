// The agent's configuration: one TOML file, every option with a default that suits one machine.
// deploy/config/agent.toml explains each option to the operator.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/net/bunker_network.h"
#include "agent/scan/scanner.h"

namespace bunker::agent {

struct RegistrySettings {
  std::string host;             // "127.0.0.1:5000", as it stands in a ref
  bool insecure_http = false;   // plain http (loopback has it without asking)
  std::string ca_file;          // PEM; empty: the system's
  std::string username;
  std::string password_file;    // read at start-up; never logged
  bool allow_address = false;   // loopback, this host's own, link-local: only where true
  std::vector<std::string> token_hosts;  // beside its own: where its token service may be
};

struct AgentConfig {
  // [controller]
  std::string controller_address = "127.0.0.1:7443";
  bool controller_tls = false;     // plain text is refused for anything but loopback
  std::string controller_ca_file;  // PEM; empty: the system's

  // [worker]
  std::string worker_name;         // default: the host's name
  std::map<std::string, std::string> labels;
  uint32_t cpu_millicores = 0;     // caps; 0: what the host has
  uint32_t memory_mb = 0;
  uint64_t disk_mb = 0;

  // [state]
  std::string state_dir = "/var/lib/bunker-agent";
  std::string join_token_file;     // read once, where there is no identity yet

  // [images]
  std::string tar_root;            // folder for build_source tar; empty: none allowed
  uint32_t bake_uid = 64010;
  uint32_t bake_deadline_s = 1800;
  uint32_t bake_cpu_s = 120;  // bounds of one bake; see BakeLimits
  uint32_t bake_memory_mib = 4096;
  uint64_t bake_max_members = 1'000'000;
  uint32_t bake_max_ratio = 200;
  uint32_t concurrent_image_jobs = 4;
  uint32_t cache_high_percent = 90;  // of what the disk can hold: above it the cache is emptied
  uint32_t cache_low_percent = 80;   // down to here
  uint32_t disk_check_s = 10;
  std::vector<RegistrySettings> registries;
  std::map<std::string, std::string> mirrors;  // registry host -> other endpoint
  std::string docker_config;                   // credentials in Docker's form; read at start-up
  uint32_t fetches_per_registry = 2;           // at the same time
  uint32_t fetches = 8;                        // the same, over all registries

  // [vm]
  std::string qemu = "/usr/bin/qemu-system-x86_64";
  std::string accelerator = "auto";  // auto | kvm | tcg
  std::string kernel = "/usr/lib/bunker/guest/vmlinux";
  std::string initrd = "/usr/lib/bunker/guest/initrd";
  uint32_t uid_base = 64100;         // one uid per VM, drawn from [base, base + count)
  uint32_t uid_count = 1000;
  uint32_t concurrent_starts = 0;    // 0: one per core
  uint32_t boot_deadline_s = 60;
  uint32_t start_burst_ms = 1000;    // no bound on a VM's CPU for so long after its start
  uint32_t template_max = 16;        // what bunkers are restored from; 0: every one boots
  uint32_t pool_max = 4;             // restored and warm, waiting to be asked for; 0: none
  uint32_t pool_memory_mb = 512;
  uint32_t template_memory_mb = 2048;  // of this host's memory, for all of them
  std::string cgroups = "auto";  // auto | required | off
  uint32_t usage_period_s = 30;  // of measuring what VMs take

  // [scan]; work_dir is the agent's own
  ScanOptions scan;

  // [network]
  std::vector<std::string> package_registries;  // profile `registry`; empty: the worker's own
  std::vector<uint32_t> egress_ports = {80, 443};  // TCP
  std::vector<std::string> egress_deny;   // IPv4 ranges; empty: DefaultRefusedRanges()
  std::vector<std::string> egress_allow;  // exceptions: IPv4 ranges and host names
  std::string uplinks = "10.201.0.0/16";  // two addresses a bunker
  uint32_t guard_uid = 64030;
  std::vector<std::string> bridges;  // of this host, that bunkers may attach to; none by default
};

// What the section [network] asks of the networks.
NetworkOptions NetworkOptionsOf(const AgentConfig& config);

// Reads and checks `path`. Unknown keys, wrong types and values out of range are errors that name
// the key and the remedy.
absl::StatusOr<AgentConfig> LoadAgentConfig(const std::string& path);

// The same from text; `origin` names it in errors.
absl::StatusOr<AgentConfig> ParseAgentConfig(const std::string& text, const std::string& origin);

}  // namespace bunker::agent
