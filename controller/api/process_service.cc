// Processes: questions to the guest's table of them, and their output as a stream.
#include <csignal>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "bunker/v1/process.pb.h"
#include "controller/api/exec_start.h"
#include "controller/api/guest_ask.h"
#include "controller/api/output_feed.h"
#include "controller/api/services.h"
#include "controller/api/validate.h"

namespace bunker::controller {
namespace {

constexpr absl::Duration kWaitForBunker = absl::Seconds(60);

// "SIGTERM", "TERM" or "15"; 0: there is none such.
uint32_t SignalOf(const std::string& name) {
  uint32_t number = 0;
  if (absl::SimpleAtoi(name, &number)) return number < static_cast<uint32_t>(NSIG) ? number : 0;
  const std::string word = name.rfind("SIG", 0) == 0 ? name.substr(3) : name;
  for (int signal = 1; signal < NSIG; ++signal) {
    const char* known = ::sigabbrev_np(signal);
    if (known != nullptr && word == known) return static_cast<uint32_t>(signal);
  }
  return 0;
}

v1::Process ProcessOf(const link::v1::ProcessRow& row) {
  v1::Process process;
  process.set_pid(row.pid());
  *process.mutable_command()->mutable_argv() = row.argv();
  process.mutable_command()->set_shell(row.shell());
  process.set_uid(row.uid());
  process.set_status(row.ended() ? v1::PROCESS_STATUS_EXITED : v1::PROCESS_STATUS_RUNNING);
  if (row.ended() && row.signal().empty()) process.set_exit_code(row.exit_code());
  if (!row.signal().empty()) process.set_signal(row.signal());
  process.set_timed_out(row.timed_out());
  process.mutable_started_at()->set_seconds(row.started_unix_ms() / 1000);
  process.mutable_started_at()->set_nanos(
      static_cast<int32_t>(row.started_unix_ms() % 1000 * 1'000'000));
  if (row.ended()) process.set_duration_ms(row.duration_ms());
  process.set_stdout_bytes(row.stdout_bytes());
  process.set_stderr_bytes(row.stderr_bytes());
  process.set_output_begin(row.output_begin());
  process.set_stdin_open(row.stdin_open());
  return process;
}

template <typename Resp>
using Finish = Dispatcher::Finish<Resp>;

// Asks and answers with the one process that the guest tells of.
void AskForOne(CallContext& context, GuestTalkBackend* talks, const std::string& bunker,
               link::v1::ProcessCall call, Finish<v1::Process> finish) {
  call.set_allow_root(HasPermission(context.caller, "root"));
  GuestAsk::Run(context, talks, bunker, std::move(call), "",
                [finish](absl::StatusOr<link::v1::ProcessAnswer> answer) {
                  if (!answer.ok()) return finish(answer.status());
                  if (answer->rows_size() != 1)
                    return finish(absl::InternalError("a guest told of no process"));
                  finish(ProcessOf(answer->rows(0)));
                });
}

template <typename Resp>
void Refuse(CallContext& context, const Finish<Resp>& finish, const absl::Status& why) {
  context.turn.AfterCommit([finish, why](const absl::Status&) { finish(why); });
}

void Create(GuestTalkBackend* talks, CallContext& context, const v1::CreateProcessRequest& request,
            Finish<v1::Process> finish) {
  v1::ExecRequest exec;
  *exec.mutable_command() = request.command();
  exec.set_cwd(request.cwd());
  *exec.mutable_env() = request.env();
  exec.set_user(request.user());
  if (const absl::Status valid = ValidateExec(exec); !valid.ok())
    return Refuse(context, finish, valid);
  link::v1::ProcessCall call;
  *call.mutable_start() = ExecStartOf(exec, context.caller);
  call.mutable_start()->set_timeout_ms(request.timeout_s() * 1000);
  AskForOne(context, talks, request.bunker(), std::move(call), std::move(finish));
}

void Write(GuestTalkBackend* talks, CallContext& context,
           const v1::WriteProcessStdinRequest& request,
           Finish<v1::WriteProcessStdinResponse> finish) {
  link::v1::ProcessCall call;
  call.set_write(request.pid());
  call.set_allow_root(HasPermission(context.caller, "root"));
  GuestAsk::Run(context, talks, request.bunker(), std::move(call), request.data(),
                [finish](absl::StatusOr<link::v1::ProcessAnswer> answer) {
                  if (!answer.ok()) return finish(answer.status());
                  v1::WriteProcessStdinResponse response;
                  response.set_written_bytes(answer->written_bytes());
                  if (answer->rows_size() == 1)
                    *response.mutable_process() = ProcessOf(answer->rows(0));
                  finish(std::move(response));
                });
}

void List(GuestTalkBackend* talks, CallContext& context, const v1::ListProcessesRequest& request,
          Finish<v1::ListProcessesResponse> finish) {
  link::v1::ProcessCall call;
  call.set_list(true);
  GuestAsk::Run(context, talks, request.bunker(), std::move(call), "",
                [finish](absl::StatusOr<link::v1::ProcessAnswer> answer) {
                  if (!answer.ok()) return finish(answer.status());
                  v1::ListProcessesResponse response;
                  for (const link::v1::ProcessRow& row : answer->rows())
                    *response.add_processes() = ProcessOf(row);
                  finish(std::move(response));
                });
}

void Read(GuestTalkBackend* talks, CallContext& context,
          const v1::ReadProcessOutputRequest& request, std::shared_ptr<StreamSink> sink) {
  OutputFeed::Start start;
  start.opening.mutable_attach()->set_pid(request.pid());
  start.opening.mutable_attach()->set_offset(request.offset());
  start.offset = request.offset();
  start.tells_offsets = true;
  OutputFeed::Run(context, talks, request.bunker(), context.turn.now() + kWaitForBunker,
                  std::move(start), std::move(sink));
}

void RegisterOne(GuestTalkBackend* talks, Dispatcher* dispatcher) {
  dispatcher->For("bunker.v1.Processes.GetProcess")
      .RegisterAsync<v1::GetProcessRequest, v1::Process>(
          [talks](CallContext& context, const v1::GetProcessRequest& request,
                  Finish<v1::Process> finish) {
            link::v1::ProcessCall call;
            call.set_get(request.pid());
            AskForOne(context, talks, request.bunker(), std::move(call), std::move(finish));
          });
  dispatcher->For("bunker.v1.Processes.CloseProcessStdin")
      .RegisterAsync<v1::GetProcessRequest, v1::Process>(
          [talks](CallContext& context, const v1::GetProcessRequest& request,
                  Finish<v1::Process> finish) {
            link::v1::ProcessCall call;
            call.set_close_stdin(request.pid());
            AskForOne(context, talks, request.bunker(), std::move(call), std::move(finish));
          });
  dispatcher->For("bunker.v1.Processes.SignalProcess")
      .RegisterAsync<v1::SignalProcessRequest, v1::Process>(
          [talks](CallContext& context, const v1::SignalProcessRequest& request,
                  Finish<v1::Process> finish) {
            link::v1::ProcessCall call;
            call.mutable_signal()->set_pid(request.pid());
            call.mutable_signal()->set_signal(SignalOf(request.signal()));
            if (call.signal().signal() == 0) {
              return Refuse(context, finish,
                            ValidationError("signal", "is no signal; send SIGTERM, TERM or 15"));
            }
            AskForOne(context, talks, request.bunker(), std::move(call), std::move(finish));
          });
}

}  // namespace

void RegisterProcessService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  GuestTalkBackend* const talks = deps.talks;
  RegisterOne(talks, dispatcher);
  dispatcher->For("bunker.v1.Processes.CreateProcess")
      .RegisterAsync<v1::CreateProcessRequest, v1::Process>(
          [talks](CallContext& context, const v1::CreateProcessRequest& request,
                  Finish<v1::Process> finish) {
            Create(talks, context, request, std::move(finish));
          });
  dispatcher->For("bunker.v1.Processes.ListProcesses")
      .RegisterAsync<v1::ListProcessesRequest, v1::ListProcessesResponse>(
          [talks](CallContext& context, const v1::ListProcessesRequest& request,
                  Finish<v1::ListProcessesResponse> finish) {
            List(talks, context, request, std::move(finish));
          });
  dispatcher->For("bunker.v1.Processes.WriteProcessStdin")
      .RegisterAsync<v1::WriteProcessStdinRequest, v1::WriteProcessStdinResponse>(
          [talks](CallContext& context, const v1::WriteProcessStdinRequest& request,
                  Finish<v1::WriteProcessStdinResponse> finish) {
            Write(talks, context, request, std::move(finish));
          });
  dispatcher->For("bunker.v1.Processes.ReadProcessOutput")
      .RegisterStream<v1::ReadProcessOutputRequest>(
          [talks](CallContext& context, const v1::ReadProcessOutputRequest& request,
                  std::shared_ptr<StreamSink> sink) {
            Read(talks, context, request, std::move(sink));
          });
}

}  // namespace bunker::controller
