// The bounds of a bake as the agent's configuration sets them. Shared by the daemon and
// `bunker-agent bake`.
//
// Thread-safe: a free function.
#pragma once

#include "agent/bake/bake_types.h"
#include "agent/config.h"

namespace bunker::agent {

inline BakeLimits LimitsOf(const AgentConfig& config) {
  BakeLimits limits;
  limits.max_members = config.bake_max_members;
  limits.max_ratio = config.bake_max_ratio;
  limits.cpu_seconds = config.bake_cpu_s;
  limits.memory_bytes = uint64_t{config.bake_memory_mib} << 20;
  limits.wall_time = absl::Seconds(config.bake_deadline_s);
  return limits;
}

}  // namespace bunker::agent
