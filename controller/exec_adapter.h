// Exec for the API over the link's tunnels: the one place where the two know each other.
#pragma once

#include <utility>

#include "controller/api/exec_backend.h"
#include "controller/link/tunnel_broker.h"

namespace bunker::controller {

class ExecAdapter final : public ExecBackend {
 public:
  // `tunnels` must outlive it.
  explicit ExecAdapter(TunnelBroker& tunnels) : tunnels_(tunnels) {}

  Id Run(const Bunker& bunker, ExecCommand command, Done done) override {
    ExecSpec spec;
    spec.worker_id = bunker.worker_id;
    spec.bunker_id = bunker.id;
    spec.incarnation = bunker.incarnation;
    spec.argv = std::move(command.argv);
    spec.shell = std::move(command.shell);
    spec.cwd = std::move(command.cwd);
    spec.env = std::move(command.env);
    spec.user = std::move(command.user);
    spec.stdin_data = std::move(command.stdin_data);
    spec.timeout = command.timeout;
    spec.allow_root = command.allow_root;
    spec.default_to_1000 = command.default_to_1000;
    spec.max_output_bytes = command.max_output_bytes;
    return tunnels_.Exec(std::move(spec),
                         [done = std::move(done)](absl::StatusOr<ExecResult> result) mutable {
      if (!result.ok()) return done(result.status());
      ExecOutcome outcome;
      outcome.exit_code = result->exit_code;
      outcome.signal = std::move(result->signal);
      outcome.stdout_data = std::move(result->stdout_data);
      outcome.stderr_data = std::move(result->stderr_data);
      outcome.stdout_bytes = result->stdout_bytes;
      outcome.stderr_bytes = result->stderr_bytes;
      outcome.timed_out = result->timed_out;
      outcome.duration_ms = result->duration_ms;
      done(std::move(outcome));
    });
  }

  void Cancel(Id id) override { tunnels_.CancelExec(id); }

 private:
  TunnelBroker& tunnels_;
};

}  // namespace bunker::controller
