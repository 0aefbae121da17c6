// Exec: waits for a bunker that is still coming up, runs the command through the backend, keeps
// the bunker from counting as idle meanwhile.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/time/clock.h"
#include "bunker/v1/bunker.pb.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/base/utf8.h"
#include "controller/api/auth.h"
#include "controller/api/errors.h"
#include "controller/api/services.h"
#include "controller/api/validate.h"

namespace bunker::controller {
namespace {

using FinishExec = Dispatcher::Finish<v1::ExecResponse>;

// One exec from its arrival to its answer. On the loop.
struct Exec {
  Core* core = nullptr;
  ExecBackend* backend = nullptr;
  Caller caller;
  std::string bunker_id;
  ExecCommand command;
  bool base64 = false;
  absl::Time deadline;
  FinishExec finish;
  std::shared_ptr<CallAudit> audit;
  bool cancelled = false;
  Core::WaitId wait = 0;
  ExecBackend::Id run_id = 0;
  bool running = false;
};

ExecCommand CommandOf(const v1::ExecRequest& request, const Caller& caller) {
  ExecCommand command;
  command.argv.assign(request.command().argv().begin(), request.command().argv().end());
  command.shell = request.command().shell();
  command.cwd = request.cwd();
  command.env.insert(request.env().begin(), request.env().end());
  command.user = request.user();
  command.stdin_data = request.stdin();
  command.timeout = absl::Seconds(request.has_timeout_s() ? request.timeout_s()
                                                          : kDefaultExecSeconds);
  command.allow_root = HasPermission(caller, "root");
  command.default_to_1000 = !command.allow_root;
  return command;
}

v1::ExecResponse ResponseOf(ExecOutcome result, bool base64) {
  v1::ExecResponse response;
  if (result.signal.empty()) {
    response.set_exit_code(result.exit_code);
  } else {
    response.set_signal(result.signal);
  }
  response.set_truncated(result.stdout_bytes > result.stdout_data.size() ||
                         result.stderr_bytes > result.stderr_data.size());
  response.set_stdout(base64 ? absl::Base64Escape(result.stdout_data)
                             : ToValidUtf8(std::move(result.stdout_data)));
  response.set_stderr(base64 ? absl::Base64Escape(result.stderr_data)
                             : ToValidUtf8(std::move(result.stderr_data)));
  response.set_stdout_bytes(result.stdout_bytes);
  response.set_stderr_bytes(result.stderr_bytes);
  response.set_timed_out(result.timed_out);
  response.set_duration_ms(result.duration_ms);
  return response;
}

void Begin(std::shared_ptr<Exec> exec, Engine& engine, Turn& turn);

// Once: a client that went away has been answered already.
void Answer(const std::shared_ptr<Exec>& exec, absl::StatusOr<v1::ExecResponse> response) {
  if (!exec->finish) return;
  std::exchange(exec->finish, nullptr)(std::move(response));
}

void Fail(const std::shared_ptr<Exec>& exec, Turn& turn, const absl::Status& status) {
  turn.AfterCommit([exec, status](const absl::Status&) { Answer(exec, status); });
}

// Nobody is waiting any more. What runs is ended; what waits is forgotten at once, and its input,
// which may be large, with it.
void Cancel(const std::shared_ptr<Exec>& exec) {
  if (exec->cancelled || !exec->finish) return;
  exec->cancelled = true;
  if (exec->running) return exec->backend->Cancel(exec->run_id);
  exec->core->CancelWait(exec->wait);
  exec->command = ExecCommand();
  Answer(exec, ApiError("UNAVAILABLE", "the client went away"));
}

void WaitUntilRunning(std::shared_ptr<Exec> exec, RowPtr<Bunker> bunker) {
  if (exec->cancelled) return;
  exec->wait = exec->core->WaitForBunker(bunker, {BunkerStatus::kRunning}, exec->deadline,
                                         [exec](RowPtr<Bunker>) {
    exec->core->Post([exec](Engine& engine, Turn& turn) { Begin(exec, engine, turn); });
  });
}

void Finished(const std::shared_ptr<Exec>& exec, absl::StatusOr<ExecOutcome> result) {
  exec->running = false;
  exec->core->Post([exec, result = std::move(result)](Engine& engine, Turn& turn) mutable {
    engine.EndExec(turn, exec->bunker_id);
    if (!result.ok()) return Fail(exec, turn, result.status());
    auto response = std::make_shared<v1::ExecResponse>(
        ResponseOf(*std::move(result), exec->base64));
    turn.AfterCommit([exec, response](const absl::Status&) { Answer(exec, *response); });
  });
}

void RunNow(const std::shared_ptr<Exec>& exec, const Bunker& bunker,
            const absl::Status& committed) {
  if (exec->cancelled || !committed.ok()) {
    exec->core->Post([exec](Engine& engine, Turn& turn) {
      engine.EndExec(turn, exec->bunker_id);
    });
    if (!committed.ok()) Answer(exec, committed);
    return;
  }
  exec->running = true;
  exec->run_id = exec->backend->Run(bunker, std::move(exec->command),
                                    [exec](absl::StatusOr<ExecOutcome> result) {
                                      Finished(exec, std::move(result));
                                    });
}

bool IsComingUp(const Bunker& bunker) {
  return bunker.live() && (bunker.status == BunkerStatus::kPending ||
                           bunker.status == BunkerStatus::kProvisioning);
}

void Begin(std::shared_ptr<Exec> exec, Engine& engine, Turn& turn) {
  if (exec->cancelled) return;
  const auto bunker = engine.FindBunker(exec->caller, exec->bunker_id);
  if (!bunker.ok()) return Fail(exec, turn, bunker.status());
  exec->bunker_id = (*bunker)->id;  // by now the name may be another's
  if (IsComingUp(**bunker) && turn.now() < exec->deadline) {
    turn.AfterCommit([exec, row = *bunker](const absl::Status& committed) {
      if (!committed.ok()) return Answer(exec, committed);
      WaitUntilRunning(exec, row);
    });
    return;
  }
  const auto begun = engine.BeginExec(turn, exec->caller, exec->bunker_id);
  if (!begun.ok()) return Fail(exec, turn, begun.status());
  exec->audit->Started(engine, turn, **begun);
  turn.AfterCommit(
      [exec, row = *begun](const absl::Status& committed) { RunNow(exec, *row, committed); });
}

void RunExec(ExecBackend* backend, CallContext& context, const v1::ExecRequest& request,
             FinishExec finish) {
  auto exec = std::make_shared<Exec>();
  exec->finish = std::move(finish);
  if (const absl::Status valid = ValidateExec(request); !valid.ok())
    return Fail(exec, context.turn, valid);
  if (backend == nullptr)
    return Fail(exec, context.turn,
                ApiError("UNAVAILABLE", "this controller has no link to workers; start one"));
  exec->core = &context.core;
  exec->backend = backend;
  exec->caller = context.caller;
  exec->audit = context.audit;
  exec->bunker_id = request.bunker();
  exec->command = CommandOf(request, context.caller);
  exec->base64 = request.output() == v1::OUTPUT_ENCODING_BASE64;
  exec->deadline = context.turn.now() + exec->command.timeout;
  if (context.info.cancel != nullptr) {
    *context.info.cancel = [exec] { Cancel(exec); };
  }
  Begin(exec, context.engine, context.turn);
}

}  // namespace

void RegisterExecService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  ExecBackend* const backend = deps.exec;
  dispatcher->For("bunker.v1.Bunkers.Exec")
      .RegisterAsync<v1::ExecRequest, v1::ExecResponse>(
          [backend](CallContext& context, const v1::ExecRequest& request, FinishExec finish) {
            RunExec(backend, context, request, std::move(finish));
          });
}

}  // namespace bunker::controller
