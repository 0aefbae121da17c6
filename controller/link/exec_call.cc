#include "controller/link/exec_call.h"

#include <algorithm>
#include <utility>

#include "common/base/reason.h"

namespace bunker::controller {
namespace {

constexpr size_t kStdinChunkBytes = 256 * 1024;
constexpr size_t kMaxQueuedBytes = 512 * 1024;

grpc::Status NobodyWaits() {
  return {grpc::StatusCode::CANCELLED, "nobody waits for the result"};
}

absl::Status Broken() {
  return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                     "the connection to the worker broke while the command ran, so its result is "
                     "not known; the bunker keeps running, look at it before running the command "
                     "again");
}

}  // namespace

ExecCall::ExecCall(ExecSpec spec, Done done) : spec_(std::move(spec)), done_(std::move(done)) {}

void ExecCall::Cancel(const absl::Status& why) {
  // The end of the stream makes the agent end the process tree.
  if (const auto stream = Finish(why)) stream->Abort(NobodyWaits());
}

void ExecCall::OnOpen(std::shared_ptr<TunnelStream> stream) {
  MutexLock lock(mutex_);
  if (finished_) {
    stream->Abort(NobodyWaits());
    return;
  }
  stream_ = std::move(stream);
  SendStart();
  PumpStdin();
  stream_->ReadNext();
}

void ExecCall::SendStart() {
  link::v1::ControllerTunnelFrame frame;
  link::v1::ExecStart& start = *frame.mutable_exec();
  for (const std::string& argument : spec_.argv) start.add_argv(argument);
  start.set_shell(spec_.shell);
  start.set_cwd(spec_.cwd);
  for (const auto& [name, value] : spec_.env) (*start.mutable_env())[name] = value;
  start.set_user(spec_.user);
  start.set_timeout_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(spec_.timeout)));
  start.set_allow_root(spec_.allow_root);
  start.set_default_to_1000(spec_.default_to_1000);
  start.set_max_output_bytes(spec_.max_output_bytes);
  stream_->Write(std::move(frame));
}

void ExecCall::PumpStdin() {
  while (!stdin_closed_ && stream_->queued_bytes() < kMaxQueuedBytes) {
    link::v1::ControllerTunnelFrame frame;
    if (stdin_sent_ < spec_.stdin_data.size()) {
      const size_t size = std::min(kStdinChunkBytes, spec_.stdin_data.size() - stdin_sent_);
      frame.set_stdin(spec_.stdin_data.data() + stdin_sent_, size);
      stdin_sent_ += size;
    } else {
      frame.set_stdin_close(true);
      stdin_closed_ = true;
    }
    if (!stream_->Write(std::move(frame))) return;  // it ends; OnClosed() says so
  }
}

void ExecCall::OnWritten() {
  MutexLock lock(mutex_);
  if (!finished_ && stream_ != nullptr) PumpStdin();
}

void ExecCall::OnFrame(link::v1::AgentTunnelFrame frame) {
  absl::StatusOr<ExecResult> result = absl::InternalError("no result");
  {
    MutexLock lock(mutex_);
    if (finished_) return;
    switch (frame.frame_case()) {
      case link::v1::AgentTunnelFrame::kOutput:
        Append(frame.output());
        stream_->ReadNext();
        return;
      case link::v1::AgentTunnelFrame::kExit:
        result_.exit_code = frame.exit().exit_code();
        result_.signal = frame.exit().signal();
        result_.stdout_bytes = std::max(result_.stdout_bytes, frame.exit().stdout_bytes());
        result_.stderr_bytes = std::max(result_.stderr_bytes, frame.exit().stderr_bytes());
        result_.timed_out = frame.exit().timed_out();
        result_.duration_ms = frame.exit().duration_ms();
        result = std::move(result_);
        break;
      case link::v1::AgentTunnelFrame::kError: {
        const std::string& code = frame.error().code();
        result = ReasonError(code == "VALIDATION_ERROR" || code == "AUTHZ_PERMISSION_DENIED"
                                 ? absl::StatusCode::kInvalidArgument
                                 : absl::StatusCode::kFailedPrecondition,
                             code.empty() ? "INTERNAL" : code, frame.error().message());
        break;
      }
      default:
        stream_->ReadNext();  // of a newer agent
        return;
    }
  }
  // What is left of stdin has no reader; it must not keep the stream open.
  if (const auto stream = Finish(std::move(result))) stream->Abort(grpc::Status::OK);
}

void ExecCall::Append(const link::v1::ExecOutput& output) {
  std::string& kept = output.stderr() ? result_.stderr_data : result_.stdout_data;
  uint64_t& total = output.stderr() ? result_.stderr_bytes : result_.stdout_bytes;
  total += output.data().size();
  if (kept.size() < spec_.max_output_bytes)
    kept.append(output.data(), 0, spec_.max_output_bytes - kept.size());
}

void ExecCall::OnClosed(const absl::Status& why) { Finish(why.ok() ? Broken() : why); }

std::shared_ptr<TunnelStream> ExecCall::Finish(absl::StatusOr<ExecResult> result) {
  Done done;
  std::shared_ptr<TunnelStream> stream;
  {
    MutexLock lock(mutex_);
    if (std::exchange(finished_, true)) return nullptr;
    stream = std::move(stream_);
    done = std::move(done_);
    spec_.stdin_data.clear();
  }
  done(std::move(result));
  return stream;
}

}  // namespace bunker::controller
