// What this host is and has, as the controller is told.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "agent/config.h"
#include "agent/vm/vmm.h"
#include "bunker/link/v1/agent_link.pb.h"
#include "common/proc/cgroup.h"

namespace bunker::agent {

// The host's cores, memory and room under state_dir, held to the configured caps.
absl::StatusOr<bunker::link::v1::WorkerFacts> ReadHostFacts(const AgentConfig& config,
                                                            const AcceleratorVerdict& verdict);

// Where the VMs get control groups of their own. Null: `policy` (vm.cgroups) wants none, or leaves
// it open and the host has none for them, which the log then tells.
absl::StatusOr<std::unique_ptr<CgroupRoot>> OpenCgroups(const std::string& policy);

// sha256 hex of a file of at most 1 GiB. Blocking.
absl::StatusOr<std::string> FileSha256(const std::string& path);

}  // namespace bunker::agent
