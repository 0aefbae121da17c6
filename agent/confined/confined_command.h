// Runs an operator's program over what came from a tenant: as a user without any right, in a
// process tree that ends as a whole.
//
// Unlike a confined child of our own it may open files, since no program works without: it reads
// what its user may read, and writes in one folder alone.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/cancel.h"
#include "common/proc/subprocess.h"

namespace bunker::agent {

struct ConfinedCommand {
  std::vector<std::string> argv;  // argv[0]: an absolute path
  std::vector<std::pair<std::string, std::string>> env;
  std::string writable_dir;  // an absolute path; the only place where it may write
  uid_t uid = 0;             // not root
  uint64_t memory_bytes = 0;
  uint32_t cpu_seconds = 0;
  bool network = false;  // the host's; false: none at all
  absl::Duration timeout;
  size_t max_output_bytes = 0;
};

// As RunCommand(): blocks until it has ended, and with it all that it started is killed, in
// whatever session that is, by the kernel. An own PID namespace makes sure of that, an own network
// namespace that it reaches nobody, Landlock that it writes nowhere else (where the kernel has it).
// Thread-safe. A binary that calls it hands over to ConfinedCommandMain() at the top of main() when
// it sees kConfinedCommandArgument as argv[1].
absl::StatusOr<CommandResult> RunConfined(const ConfinedCommand& command, CancelToken& cancel);

inline constexpr char kConfinedCommandArgument[] = "confined-command";
int ConfinedCommandMain(int argc, char** argv);

}  // namespace bunker::agent
