// Runs a short helper program to its end, with everything bounded: time, output, inherited state.
// For tools of the host such as `nft`; never for anything whose argv holds a tenant's string.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/cancel.h"
#include "common/proc/process.h"

namespace bunker {

struct CommandOptions {
  std::string stdin_data;                         // written to its stdin, which is then closed
  absl::Duration timeout = absl::Seconds(30);     // then the whole process group is killed
  size_t max_output_bytes = 64 * 1024;            // kept of stdout and of stderr each; more is read
                                                  // and dropped, `truncated` says so
  std::vector<std::pair<std::string, std::string>> env;  // the whole environment
};

struct CommandResult {
  ProcessExit exit;
  std::string stdout_data;
  std::string stderr_data;
  bool truncated = false;

  bool ok() const { return exit.known && exit.signal == 0 && exit.code == 0; }
};

// Runs `argv` (argv[0]: an absolute path) in its own process group with only stdin, stdout and
// stderr open, default signal actions, and no environment but `options.env`. Blocks until it has
// ended or was killed; no process of the group is left behind. A program that fails is an OK
// result with its exit; errors are kNotFound (no such program), kDeadlineExceeded and kCancelled,
// with the last of its stderr in the message. Thread-safe. `cancel` may be null.
absl::StatusOr<CommandResult> RunCommand(const std::vector<std::string>& argv,
                                         const CommandOptions& options, CancelToken* cancel);

}  // namespace bunker
