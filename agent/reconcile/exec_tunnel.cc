#include "agent/reconcile/exec_tunnel.h"

#include <algorithm>
#include <utility>

#include "common/base/log.h"
#include "common/base/reason.h"

namespace bunker::agent {
namespace {

constexpr absl::Duration kMaxWaitForGuest = absl::Seconds(30);
constexpr absl::Duration kGuestPoll = absl::Milliseconds(50);

ExecSpec SpecOf(const link::v1::ExecStart& start) {
  ExecSpec spec;
  spec.argv.assign(start.argv().begin(), start.argv().end());
  spec.shell = start.shell();
  spec.cwd = start.cwd();
  for (const auto& [name, value] : start.env()) spec.env[name] = value;
  spec.user = start.user();
  spec.timeout_ms = start.timeout_ms();
  spec.allow_root = start.allow_root();
  spec.default_to_1000 = start.default_to_1000();
  spec.max_output_bytes = start.max_output_bytes();
  spec.auto_ack = false;
  return spec;
}

}  // namespace

void ExecTunnel::Serve(const Parts& parts, const link::v1::OpenTunnel& request,
                       std::shared_ptr<Tunnel> tunnel) {
  std::shared_ptr<ExecTunnel> exec(new ExecTunnel(parts, request, tunnel));
  parts.live.insert(exec);
  tunnel->Serve(exec.get());
}

ExecTunnel::Poster ExecTunnel::MakePoster() {
  return [&loop = parts_.loop, weak = weak_from_this()](Task task) {
    loop.Post([weak, task = std::move(task)] {
      if (const auto self = weak.lock()) task(*self);
    });
  };
}

void ExecTunnel::OnExec(const link::v1::ExecStart& start) {
  spec_ = SpecOf(start);
  auto channel = parts_.bunkers.FindChannel(bunker_id_, incarnation_);
  if (!channel.ok()) {
    Fail(channel.status());
  } else if ((*channel)->ready()) {
    Begin(*channel);
  } else {
    const absl::Duration timeout = absl::Milliseconds(spec_.timeout_ms);
    WaitForGuest(*channel, Deadline(spec_.timeout_ms == 0 ? kMaxWaitForGuest
                                                          : std::min(kMaxWaitForGuest, timeout)));
  }
}

// After this agent's own start, or a guest's slip of the tongue, the channel takes a moment. A
// timer and not a thread waits for it: a guest that stays away must not hold up other bunkers.
void ExecTunnel::WaitForGuest(const std::shared_ptr<GuestChannel>& channel,
                              const Deadline& deadline) {
  if (ended_) return;
  if (channel->ready() || cancelled_) return Begin(channel);
  if (deadline.Expired()) {
    const absl::Status why = channel->WaitReady(absl::ZeroDuration());
    return why.ok() ? Begin(channel) : Fail(why);
  }
  parts_.loop.AddTimer(kGuestPoll, [weak = weak_from_this(), channel, deadline] {
    if (const auto self = weak.lock()) self->WaitForGuest(channel, deadline);
  });
}

void ExecTunnel::Begin(const std::shared_ptr<GuestChannel>& channel) {
  if (cancelled_) {
    Fail(ReasonError(absl::StatusCode::kCancelled, "CANCELLED", "the command was cancelled"));
    return;
  }
  channel_ = channel;
  began_ = absl::Now();
  const Poster post = MakePoster();
  ExecCallbacks callbacks;
  callbacks.on_output = [post](bool is_stderr, std::string_view data) {
    post([is_stderr, copy = std::string(data)](ExecTunnel& exec) {
      exec.OnOutput(is_stderr, copy);
    });
  };
  callbacks.on_exit = [post](const ExecResult& result) {
    post([result](ExecTunnel& exec) { exec.OnExit(result); });
  };
  callbacks.on_error = [post](const absl::Status& status) {
    post([status](ExecTunnel& exec) { exec.Fail(status); });
  };
  callbacks.on_stdin_room = [post] { post([](ExecTunnel& exec) { exec.PumpStdin(); }); };
  auto handle = channel->StartExec(spec_, std::move(callbacks));
  if (!handle.ok()) {
    Fail(handle.status());
    return;
  }
  handle_ = *std::move(handle);
  parts_.bunkers.CountExec(bunker_id_, incarnation_, +1);
  PumpStdin();
}

void ExecTunnel::OnStdin(std::string data) {
  stdin_ = std::move(data);
  stdin_waiting_ = true;
  PumpStdin();
}

void ExecTunnel::OnStdinClose() {
  stdin_closing_ = true;
  PumpStdin();
}

void ExecTunnel::PumpStdin() {
  if (ended_) return;
  if (!handle_) return;  // Begin() comes back here
  if (!stdin_.empty()) stdin_.erase(0, handle_->TryWriteStdin(stdin_));
  if (!stdin_.empty()) return;
  if (std::exchange(stdin_waiting_, false)) tunnel_->StdinTaken();
  if (stdin_closing_ && stdin_.empty() && !stdin_waiting_) handle_->CloseStdin();
}

void ExecTunnel::OnCancel() {
  cancelled_ = true;
  if (handle_) handle_->Kill();
}

void ExecTunnel::OnOutput(bool is_stderr, const std::string& data) {
  if (ended_) return;
  if (tunnel_->SendOutput(is_stderr, data)) {
    handle_->AckOutput(data.size());
  } else {
    unacked_bytes_ += data.size();
  }
}

void ExecTunnel::OnWritable() {
  if (handle_ && unacked_bytes_ > 0) handle_->AckOutput(std::exchange(unacked_bytes_, 0));
}

void ExecTunnel::OnExit(const ExecResult& result) {
  if (std::exchange(ended_, true)) return;
  link::v1::ExecExit exit;
  exit.set_exit_code(result.exit_code);
  exit.set_signal(result.signal);
  exit.set_stdout_bytes(result.stdout_bytes);
  exit.set_stderr_bytes(result.stderr_bytes);
  exit.set_timed_out(result.timed_out);
  exit.set_duration_ms(absl::ToDoubleMilliseconds(result.duration));
  parts_.bunkers.CountExec(bunker_id_, incarnation_, -1);
  parts_.bunkers.OnExecDone(bunker_id_, incarnation_, absl::Now() - began_);
  tunnel_->SendExit(exit);
}

void ExecTunnel::Fail(const absl::Status& status) {
  if (std::exchange(ended_, true)) return;
  if (handle_) parts_.bunkers.CountExec(bunker_id_, incarnation_, -1);
  Log(Severity::kInfo, "exec.failed",
      {{"bunker", bunker_id_}, {"error", std::string(status.message())}});
  tunnel_->SendError(status);
}

void ExecTunnel::OnClosed(const absl::Status& why) {
  if (!std::exchange(ended_, true)) {
    Log(Severity::kInfo, "exec.abandoned",
        {{"bunker", bunker_id_}, {"why", std::string(why.message())}});
    if (handle_) parts_.bunkers.CountExec(bunker_id_, incarnation_, -1);
  }
  handle_.reset();  // kills the process tree where it still runs
  channel_.reset();
  parts_.live.erase(shared_from_this());  // may be the end of this object
}

}  // namespace bunker::agent
