// What the agent's configuration says of registries and tar sources, as the puller takes it. Shared
// by the daemon and `bunker-agent bake`.
//
// Thread-safe: a free function.
#pragma once

#include "absl/status/statusor.h"
#include "agent/config.h"
#include "agent/pull/pull_types.h"

namespace bunker::agent {

// Reads the password files and the docker config; the proxies come from the environment. An error
// names the file, and nothing of what is in it.
absl::StatusOr<PullConfig> PullConfigOf(const AgentConfig& config);

}  // namespace bunker::agent
