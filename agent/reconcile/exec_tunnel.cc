#include "agent/reconcile/exec_tunnel.h"

#include <algorithm>
#include <utility>

#include "agent/reconcile/process_codec.h"
#include "common/base/log.h"
#include "common/base/reason.h"

namespace bunker::agent {
namespace {

constexpr absl::Duration kMaxWaitForGuest = absl::Seconds(30);
constexpr absl::Duration kGuestPoll = absl::Milliseconds(50);
constexpr absl::Duration kWriteTimeout = absl::Seconds(20);  // of one piece of a process's stdin
constexpr size_t kPieceBytes = 64 * 1024;

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
  spec.tell_start = start.tell_start();
  if (start.has_terminal()) {
    spec.terminal = TerminalSize{start.terminal().columns(), start.terminal().rows()};
  }
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
  is_exec_ = true;
  ask_ = [spec = SpecOf(start)](GuestChannel& channel, ExecCallbacks callbacks) {
    return channel.StartExec(spec, std::move(callbacks));
  };
  FindGuest(start.timeout_ms() == 0 ? kMaxWaitForGuest : absl::Milliseconds(start.timeout_ms()));
}

void ExecTunnel::OnAttach(const link::v1::ProcessAttach& attach) {
  ask_ = [attach](GuestChannel& channel, ExecCallbacks callbacks) {
    return channel.ReadProcess(attach.pid(), attach.offset(), std::move(callbacks));
  };
  FindGuest(kMaxWaitForGuest);
}

void ExecTunnel::OnLog(const link::v1::LogRead& read) {
  is_log_ = true;
  ask_ = [read](GuestChannel& channel, ExecCallbacks callbacks) {
    return channel.ReadMain(read.offset(), read.follow(), std::move(callbacks));
  };
  FindGuest(kMaxWaitForGuest);
}

void ExecTunnel::OnProcess(const link::v1::ProcessCall& call) {
  if (call.has_write()) {
    is_write_ = true;
    write_pid_ = call.write();
    write_allow_root_ = call.allow_root();
  } else {
    ask_ = [call = ToGuest(call)](GuestChannel& channel, ExecCallbacks callbacks) {
      return channel.CallProcess(call, std::move(callbacks));
    };
  }
  FindGuest(kMaxWaitForGuest);
}

void ExecTunnel::FindGuest(absl::Duration timeout) {
  auto channel = parts_.bunkers.FindChannel(bunker_id_, incarnation_);
  if (!channel.ok()) {
    Fail(channel.status());
  } else if ((*channel)->ready()) {
    Begin(*channel);
  } else {
    WaitForGuest(*channel, Deadline(std::min(kMaxWaitForGuest, timeout)));
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
  if (ask_) {
    auto handle = ask_(*channel, Callbacks());
    if (!handle.ok()) return Fail(handle.status());
    handle_ = *std::move(handle);
  }
  counted_ = !is_log_;
  if (counted_) parts_.bunkers.CountExec(bunker_id_, incarnation_, +1);
  PumpStdin();
}

ExecCallbacks ExecTunnel::Callbacks() {
  const Poster post = MakePoster();
  ExecCallbacks callbacks;
  callbacks.on_output = [post](bool is_stderr, std::string_view data) {
    post([is_stderr, copy = std::string(data)](ExecTunnel& exec) {
      exec.OnOutput(is_stderr, copy);
    });
  };
  callbacks.on_started = [post](uint32_t pid) {
    post([pid](ExecTunnel& exec) { exec.tunnel_->SendStarted(pid); });
  };
  callbacks.on_gap = [post](uint64_t bytes) {
    post([bytes](ExecTunnel& exec) { exec.tunnel_->SendGap(bytes); });
  };
  callbacks.on_answer = [post](const guest::v1::ProcessAnswer& answer) {
    post([answer](ExecTunnel& exec) { exec.OnAnswer(answer); });
  };
  callbacks.on_exit = [post](const ExecResult& result) {
    post([result](ExecTunnel& exec) { exec.OnExit(result); });
  };
  callbacks.on_log_end = [post](uint64_t next_offset) {
    post([next_offset](ExecTunnel& exec) { exec.OnLogEnd(next_offset); });
  };
  callbacks.on_error = [post](const absl::Status& status) {
    post([status](ExecTunnel& exec) { exec.Fail(status); });
  };
  callbacks.on_stdin_room = [post] { post([](ExecTunnel& exec) { exec.PumpStdin(); }); };
  return callbacks;
}

void ExecTunnel::OnResize(const link::v1::TerminalSize& size) {
  if (handle_ && is_exec_) handle_->Resize({size.columns(), size.rows()});
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
  if (is_write_) return PumpWrite();
  if (!handle_) return;  // Begin() comes back here
  if (!stdin_.empty()) stdin_.erase(0, handle_->TryWriteStdin(stdin_));
  if (!stdin_.empty()) return;
  if (std::exchange(stdin_waiting_, false)) tunnel_->StdinTaken();
  if (stdin_closing_ && stdin_.empty() && !stdin_waiting_) handle_->CloseStdin();
}

// One piece at a time: the guest answers once the process's pipe has taken it.
void ExecTunnel::PumpWrite() {
  if (channel_ == nullptr || piece_bytes_ > 0) return;
  guest::v1::ProcessCall call;
  call.set_allow_root(write_allow_root_);
  if (stdin_.empty()) {
    if (std::exchange(stdin_waiting_, false)) tunnel_->StdinTaken();
    if (!stdin_closing_ || ended_ || !stdin_.empty() || stdin_waiting_) return;
    call.set_get(write_pid_);  // all is written: what has become of the process
  } else {
    piece_bytes_ = std::min(stdin_.size(), kPieceBytes);
    call.mutable_write()->set_pid(write_pid_);
    call.mutable_write()->set_data(stdin_.data(), piece_bytes_);
    parts_.loop.AddTimer(kWriteTimeout, [weak = weak_from_this(), piece = ++piece_] {
      if (const auto self = weak.lock()) self->OnWriteTimeout(piece);
    });
  }
  auto handle = channel_->CallProcess(call, Callbacks());
  if (!handle.ok()) return Fail(handle.status());
  handle_ = *std::move(handle);
}

void ExecTunnel::OnWriteTimeout(uint64_t piece) {
  if (ended_ || piece != piece_ || piece_bytes_ == 0) return;
  write_timed_out_ = true;
  handle_->Kill();  // the answer says how much was taken
}

void ExecTunnel::OnAnswer(const guest::v1::ProcessAnswer& answer) {
  if (ended_) return;
  const size_t asked = std::exchange(piece_bytes_, 0);
  const size_t taken = std::min<size_t>(asked, answer.taken_bytes());
  written_bytes_ += taken;
  stdin_.erase(0, taken);
  if (asked > 0 && taken == asked) return PumpWrite();
  if (write_timed_out_) {
    return Fail(ReasonError(absl::StatusCode::kDeadlineExceeded, "UPSTREAM_TIMEOUT",
                            "the process does not read its stdin; " +
                                std::to_string(written_bytes_) +
                                " bytes were taken, send the rest when it does"));
  }
  ended_ = true;
  parts_.bunkers.CountExec(bunker_id_, incarnation_, -1);
  link::v1::ProcessAnswer told = ToLink(answer, absl::Now());
  told.set_written_bytes(written_bytes_);
  tunnel_->SendProcess(std::move(told));
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
  if (counted_) parts_.bunkers.CountExec(bunker_id_, incarnation_, -1);
  if (is_exec_) parts_.bunkers.OnExecDone(bunker_id_, incarnation_, absl::Now() - began_);
  tunnel_->SendExit(exit);
}

void ExecTunnel::OnLogEnd(uint64_t next_offset) {
  if (std::exchange(ended_, true)) return;
  tunnel_->SendLogEnd(next_offset);
}

void ExecTunnel::Fail(const absl::Status& status) {
  if (std::exchange(ended_, true)) return;
  if (counted_) parts_.bunkers.CountExec(bunker_id_, incarnation_, -1);
  Log(Severity::kInfo, "exec.failed",
      {{"bunker", bunker_id_}, {"error", std::string(status.message())}});
  tunnel_->SendError(status);
}

void ExecTunnel::OnClosed(const absl::Status& why) {
  if (!std::exchange(ended_, true)) {
    Log(Severity::kInfo, "exec.abandoned",
        {{"bunker", bunker_id_}, {"why", std::string(why.message())}});
    if (counted_) parts_.bunkers.CountExec(bunker_id_, incarnation_, -1);
  }
  handle_.reset();  // kills the process tree where it still runs
  channel_.reset();
  parts_.live.erase(shared_from_this());  // may be the end of this object
}

}  // namespace bunker::agent
