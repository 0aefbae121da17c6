// The controller's configuration file: every option has a default, and what is unknown is refused.
//
// Thread-safe: a value and free functions.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace bunker::controller {

struct HostPort {
  std::string host;
  uint16_t port = 0;
  std::string ToString() const;
  bool is_loopback() const;
};

// "127.0.0.1:8080" or "[::1]:8080"; an IP address, no name.
absl::StatusOr<HostPort> ParseHostPort(const std::string& text);

struct ControllerConfig {
  std::string state_dir = "/var/lib/bunker-controller";

  HostPort rest = {"127.0.0.1", 8080};
  std::string rest_tls_certificate;  // PEM; both or none
  std::string rest_tls_key;
  std::vector<std::string> allowed_origins;  // of pages that may open shells
  uint32_t rest_max_connections = 2000;
  uint32_t rest_max_connections_per_ip = 100;

  HostPort grpc = {"127.0.0.1", 7443};
  std::string grpc_tls_certificate;  // needed for every address but loopback
  std::string grpc_tls_key;

  // Prometheus' listener. Of its default a taken port is a warning, since many share a machine in
  // tests; of one that was set, it stops the start.
  HostPort metrics = {"127.0.0.1", 9464};
  bool metrics_set = false;

  std::string admin_socket = "/run/bunker-controller/admin.sock";

  double requests_per_s = 100;  // of one key
  double request_burst = 200;

  double cpu_overcommit = 1.0;
  uint64_t memory_reserve_mb = 0;  // kept free on every worker
  uint64_t disk_reserve_mb = 0;
  std::string placement_strategy = "spread";  // or "pack"

  uint32_t offline_after_s = 30;
  uint32_t lost_after_s = 300;
  uint32_t sweep_interval_s = 120;
  uint32_t audit_retention_days = 0;  // 0 = for ever
  uint32_t tag_check_interval_s = 6 * 3600;
  uint32_t modelarts_size_mib = 16384;  // that API has no field for the cap
  uint32_t builds_per_registry = 64;  // images being made at once; 0: no bound
  uint32_t builds_per_worker = 4;
  std::map<std::string, uint32_t> registry_builds;  // for some registries, by host
  uint32_t retry_base_s = 10;                       // after a failed attempt; doubles
  uint32_t retry_max_s = 300;
  uint32_t pending_deadline_s = 600;  // a worker that does not begin
  uint32_t stall_deadline_s = 900;    // one that began and gets nowhere
  uint32_t keep_unused_s = 600;       // what lazy_pull brought, after its last use

  std::string scan_advisories;  // folder of OSV files; empty: none, and scans fail and say so
  uint32_t scan_interval_s = 120;
  uint32_t scan_max_age_s = 86'400;
  uint32_t scan_deadline_s = 900;
  bool scan_unknown_fails = true;
  std::string scan_gate = "off";  // off | failed | unscanned

  uint32_t snapshots_per_tenant = 100;
  uint64_t snapshot_mib_per_tenant = 102'400;
  uint32_t snapshot_deadline_s = 600;

  std::string state_file() const { return state_dir + "/state.db"; }
};

// kInvalidArgument names the option, the cause and the remedy.
absl::StatusOr<ControllerConfig> ParseControllerConfig(const std::string& text,
                                                       const std::string& origin);
absl::StatusOr<ControllerConfig> LoadControllerConfig(const std::string& path);

}  // namespace bunker::controller
