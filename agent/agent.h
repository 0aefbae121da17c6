// The daemon: builds every part from the configuration, brings back what an earlier life left
// (images, running VMs), joins the controller, and serves until SIGTERM or SIGINT. VMs stay.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/config.h"
#include "agent/link/channel.h"

namespace bunker::agent {

// Blocking. An error at start-up names the remedy; OK after a signal asked it to end.
absl::Status RunAgent(const AgentConfig& config);

// Where the controller is.
LinkEndpoint EndpointOf(const AgentConfig& config);

// Which accelerator guests really run on here, in a sentence for the operator. Seconds at most.
absl::StatusOr<std::string> ProbeHost(const AgentConfig& config);

}  // namespace bunker::agent
