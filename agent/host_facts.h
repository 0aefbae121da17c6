// What this host is and has, as the controller is told.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "agent/config.h"
#include "agent/vm/vmm.h"
#include "bunker/link/v1/agent_link.pb.h"

namespace bunker::agent {

// The host's cores, memory and room under state_dir, held to the configured caps.
absl::StatusOr<bunker::link::v1::WorkerFacts> ReadHostFacts(const AgentConfig& config,
                                                            const AcceleratorVerdict& verdict);

// sha256 hex of a file of at most 1 GiB. Blocking.
absl::StatusOr<std::string> FileSha256(const std::string& path);

}  // namespace bunker::agent
