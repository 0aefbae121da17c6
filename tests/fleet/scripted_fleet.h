// A fleet of scripted agents in one process, and the lines of text that drive it.
//
// On its loop only, but for JoinAll().
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/link/channel.h"
#include "agent/link/identity.h"
#include "tests/fleet/scripted_agent.h"

namespace bunker::test {

struct FleetOptions {
  agent::LinkEndpoint endpoint;
  size_t agents = 1;
  std::string prefix = "w";  // names: w0, w1, …
  uint32_t cpu_millicores = 4000;
  uint32_t memory_mb = 8192;
  uint64_t disk_mb = 100'000;
  std::string arch = "X86_64";
  // Label zone=z<number modulo this>; 0: no label.
  size_t zones = 0;
  uint64_t seed = 1;
  AgentScript script;
};

// The identities in `path` (one `name worker_id credential` a line), as many as there are.
absl::StatusOr<std::vector<agent::Identity>> LoadIdentities(const std::string& path);
absl::Status SaveIdentities(const std::string& path,
                            const std::vector<agent::Identity>& identities);

// Joins every agent that is not among `identities` yet, each with a token of its own from the
// controller's admin socket, and appends it. Blocking; several at a time over one connection.
absl::Status JoinAll(const FleetOptions& options, const std::string& admin_socket,
                     std::vector<agent::Identity>& identities);

class ScriptedFleet {
 public:
  // REQUIRES: identities.size() >= options.agents. `loop` must outlive the fleet.
  ScriptedFleet(Loop& loop, FleetOptions options, std::vector<agent::Identity> identities);

  // Obeys one line and returns the answer, one line of JSON. The commands:
  //   stats                     counters, and how many are connected
  //   dial [N] | drop [N]       the first N agents (default: all)
  //   reboot [N]                their hosts come up anew
  //   flood on|off              tell of activity in all running bunkers, as fast as it is acked
  //   set KEY VALUE             image_ms boot_ms stop_ms spread image_failures boot_failures
  //   dump                      what each agent holds
  std::string Obey(const std::string& line);

 private:
  std::string Stats() const;
  std::string Dump() const;
  bool Set(const std::string& key, double value);

  Loop& loop_;
  FleetOptions options_;
  AgentCounters counters_;
  std::vector<std::unique_ptr<ScriptedAgent>> agents_;
};

}  // namespace bunker::test
