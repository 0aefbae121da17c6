// Running a command in a bunker, as the API sees it. The link implements it over a tunnel to the
// worker's agent; the wiring brings both together, so that neither includes the other.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "controller/engine/change_set.h"

namespace bunker::controller {

struct ExecCommand {
  std::vector<std::string> argv;  // exactly one of argv and shell
  std::string shell;
  std::string cwd;  // empty: the image's
  std::map<std::string, std::string> env;
  std::string user;  // empty: the image's
  std::string stdin_data;
  absl::Duration timeout = absl::Seconds(60);
  bool allow_root = false;       // false: uid 0, in any spelling, is refused inside the guest
  bool default_to_1000 = false;  // no user given and the image's is uid 0: run as uid 1000
  uint64_t max_output_bytes = 1u << 20;  // of each stream; the rest is drained and counted
};

struct ExecOutcome {
  int exit_code = 0;   // where signal is empty
  std::string signal;  // "SIGKILL"
  std::string stdout_data;
  std::string stderr_data;
  uint64_t stdout_bytes = 0;
  uint64_t stderr_bytes = 0;
  bool timed_out = false;
  double duration_ms = 0;
};

class ExecBackend {
 public:
  using Id = uint64_t;
  using Done = absl::AnyInvocable<void(absl::StatusOr<ExecOutcome>)>;
  virtual ~ExecBackend() = default;

  // Starts the command in a running bunker. `done` runs exactly once, on the core's loop, never
  // from within Run(); by itself at the latest some seconds after the command's time-out
  // (UPSTREAM_TIMEOUT). Errors: UNAVAILABLE (the worker is not connected or broke off), and what
  // the guest refuses. On the core's loop.
  virtual Id Run(const Bunker& bunker, ExecCommand command, Done done) = 0;

  // Ends the command's process tree early; `done` still runs. An unknown id is fine. On the loop.
  virtual void Cancel(Id id) = 0;
};

}  // namespace bunker::controller
