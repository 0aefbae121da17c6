// Exec: runs a command through the backend and answers with all of it, or as it comes.
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "bunker/v1/bunker.pb.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/base/utf8.h"
#include "controller/api/auth.h"
#include "controller/api/bunker_use.h"
#include "controller/api/errors.h"
#include "controller/api/exec_start.h"
#include "controller/api/output_feed.h"
#include "controller/api/services.h"
#include "controller/api/validate.h"

namespace bunker::controller {
namespace {

using FinishExec = Dispatcher::Finish<v1::ExecResponse>;

// One exec from its arrival to its answer. On the loop.
struct Exec {
  ExecBackend* backend = nullptr;
  ExecCommand command;
  bool base64 = false;
  FinishExec finish;
  std::shared_ptr<BunkerUse> use;
  bool cancelled = false;
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

// Once: a client that went away has been answered already.
void Answer(const std::shared_ptr<Exec>& exec, absl::StatusOr<v1::ExecResponse> response) {
  if (!exec->finish) return;
  std::exchange(exec->finish, nullptr)(std::move(response));
}

absl::Status NoLink() {
  return ApiError("UNAVAILABLE", "this controller has no link to workers; start one");
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
  exec->use->Cancel();
  exec->command = ExecCommand();
  Answer(exec, ApiError("UNAVAILABLE", "the client went away"));
}

void RunNow(const std::shared_ptr<Exec>& exec, const Bunker& bunker) {
  exec->running = true;
  exec->run_id = exec->backend->Run(
      bunker, std::move(exec->command), [exec](absl::StatusOr<ExecOutcome> result) {
        exec->running = false;
        exec->use->End();
        if (!result.ok()) return Answer(exec, result.status());
        Answer(exec, ResponseOf(*std::move(result), exec->base64));
      });
}

void RunExec(ExecBackend* backend, CallContext& context, const v1::ExecRequest& request,
             FinishExec finish) {
  auto exec = std::make_shared<Exec>();
  exec->finish = std::move(finish);
  if (const absl::Status valid = ValidateExec(request); !valid.ok())
    return Fail(exec, context.turn, valid);
  if (request.stream()) {
    return Fail(exec, context.turn,
                ValidationError("stream", "is for REST; over gRPC call ExecStream"));
  }
  if (backend == nullptr) return Fail(exec, context.turn, NoLink());
  exec->backend = backend;
  exec->command = CommandOf(request, context.caller);
  exec->base64 = request.output() == v1::OUTPUT_ENCODING_BASE64;
  if (context.info.cancel != nullptr) {
    *context.info.cancel = [exec] { Cancel(exec); };
  }
  exec->use = BunkerUse::Begin(context, request.bunker(),
                               context.turn.now() + exec->command.timeout, /*counts=*/true,
                               [exec](const absl::StatusOr<RowPtr<Bunker>>& bunker) {
                                 if (!bunker.ok()) return Answer(exec, bunker.status());
                                 RunNow(exec, **bunker);
                               });
}

void StreamExec(GuestTalkBackend* backend, CallContext& context, const v1::ExecRequest& request,
                std::shared_ptr<StreamSink> sink) {
  const absl::Status refused = ValidateExec(request);
  if (!refused.ok()) {
    context.audit->Refused(context.engine, context.turn, refused);
    context.turn.AfterCommit([sink, refused](const absl::Status&) { sink->End(refused); });
    return;
  }
  const absl::Duration timeout =
      absl::Seconds(request.has_timeout_s() ? request.timeout_s() : kDefaultExecSeconds);
  OutputFeed::Start start;
  *start.opening.mutable_exec() = ExecStartOf(request, context.caller);
  start.opening.mutable_exec()->set_timeout_ms(
      static_cast<uint32_t>(absl::ToInt64Milliseconds(timeout)));
  start.stdin_data = request.stdin();
  start.closes_stdin = true;
  OutputFeed::Run(context, backend, request.bunker(), context.turn.now() + timeout,
                  std::move(start), std::move(sink));
}

}  // namespace

void RegisterExecService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  ExecBackend* const backend = deps.exec;
  dispatcher->For("bunker.v1.Bunkers.Exec")
      .RegisterAsync<v1::ExecRequest, v1::ExecResponse>(
          [backend](CallContext& context, const v1::ExecRequest& request, FinishExec finish) {
            RunExec(backend, context, request, std::move(finish));
          });
  dispatcher->For("bunker.v1.Bunkers.ExecStream")
      .RegisterStream<v1::ExecRequest>(
          [talks = deps.talks](CallContext& context, const v1::ExecRequest& request,
                               std::shared_ptr<StreamSink> sink) {
            StreamExec(talks, context, request, std::move(sink));
          });
}

}  // namespace bunker::controller
