#include "agent/guest/exec_session.h"

#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>

namespace bunker::guest {
namespace {

constexpr int kReadsPerTurn = 8;  // so that one noisy command leaves room for the others
constexpr uint64_t kKillPollMicros = 2000;
constexpr uint64_t kKillGiveUpMicros = 10'000'000;

}  // namespace

uint64_t NowMicros() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

std::string SignalName(int signal) {
  const char* name = sigabbrev_np(signal);
  return name != nullptr ? std::string("SIG") + name : "SIG" + std::to_string(signal);
}

ExecSession::ExecSession(Child child, Cgroup cgroup, Limits limits, Poller* poller, ExecPeer* peer,
                         char* scratch, uint64_t token_base)
    : child_pid_(child.pid),
      cgroup_(std::move(cgroup)),
      limits_(limits),
      peer_(peer),
      scratch_(scratch),
      started_us_(NowMicros()) {
  const auto token = [&](Channel channel) { return token_base + static_cast<uint64_t>(channel); };
  status_ = Watched(poller, std::move(child.status_read), EPOLLIN, token(Channel::kStatus));
  stdin_ = Watched(poller, std::move(child.stdin_write), EPOLLOUT, token(Channel::kStdin));
  out_.pipe = Watched(poller, std::move(child.stdout_read), EPOLLIN, token(Channel::kStdout));
  err_.pipe = Watched(poller, std::move(child.stderr_read), EPOLLIN, token(Channel::kStderr));
  err_.is_stderr = true;
  err_.done = !err_.pipe.open();  // on a terminal both outputs are one
  status_.Watch(true);
  UpdateInterest();
}

void ExecSession::OnReady(Channel channel) {
  switch (channel) {
    case Channel::kStdin:
      WriteStdin();
      break;
    case Channel::kStdout:
      ReadOutput(&out_);
      break;
    case Channel::kStderr:
      ReadOutput(&err_);
      break;
    case Channel::kStatus:
      ReadStatus();
      break;
  }
  UpdateInterest();
  FinishIfDone();
}

void ExecSession::ReadStatus() {
  if (!status_.open() || !ReadSpawnStatus(status_.fd(), &failure_)) return;
  status_.Close();
  if (failure_.ok()) peer_->OnStarted(child_pid_);
}

void ExecSession::OnRoom() {
  ReadOutput(&out_);
  ReadOutput(&err_);
  UpdateInterest();
  FinishIfDone();
}

bool ExecSession::MayRead(const Output& output) const {
  if (!output.pipe.open() || output.done) return false;
  if (drop_output_ || output.forwarded >= limits_.max_output_bytes) return true;
  return peer_->Room() > 0;
}

void ExecSession::ReadOutput(Output* output) {
  for (int turn = 0; turn < kReadsPerTurn && MayRead(*output); ++turn) {
    const uint64_t left = limits_.max_output_bytes - output->forwarded;
    const size_t peer_room = peer_->Room();
    const bool forward = left > 0 && peer_room > 0;
    size_t room = wire::kMaxDataBytes;
    if (forward) room = std::min<size_t>({room, left, peer_room});
    const ssize_t got = read(output->pipe.fd(), scratch_, room);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) {
      // The command's own bytes were in the pipe before it ended: empty now is all of them.
      if (reaped_ && (kill_deadline_us_ == 0 || tree_dead_)) output->done = true;
      return;
    }
    if (got <= 0) {
      output->done = true;
      output->pipe.Close();
      return;
    }
    const auto bytes = static_cast<size_t>(got);
    output->total += bytes;
    if (!forward) continue;
    output->forwarded += bytes;
    ReadStatus();  // a program that writes has started
    peer_->OnOutput(output->is_stderr, std::string_view(scratch_, bytes));
  }
}

void ExecSession::Feed(std::string_view data) {
  if (!stdin_open()) return peer_->OnStdinDropped(data.size());
  stdin_queue_.emplace_back(data);
  WriteStdin();
  UpdateInterest();
}

size_t ExecSession::DropStdin() {
  size_t bytes = 0;
  for (const std::string& chunk : stdin_queue_) bytes += chunk.size();
  bytes -= std::exchange(stdin_front_written_, 0);
  stdin_queue_.clear();
  UpdateInterest();
  return bytes;
}

void ExecSession::WriteStdin() {
  size_t taken = 0;
  while (!stdin_queue_.empty() && stdin_.open()) {
    const std::string& front = stdin_queue_.front();
    const ssize_t written = write(stdin_.fd(), front.data() + stdin_front_written_,
                                  front.size() - stdin_front_written_);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN) break;
    if (written < 0) {  // nobody reads it any more
      if (taken > 0) peer_->OnStdinTaken(std::exchange(taken, 0));
      EndStdin();
      break;
    }
    taken += static_cast<size_t>(written);
    stdin_front_written_ += static_cast<size_t>(written);
    if (stdin_front_written_ == front.size()) {
      stdin_queue_.pop_front();
      stdin_front_written_ = 0;
    }
  }
  if (taken > 0) peer_->OnStdinTaken(taken);
  if (stdin_queue_.empty() && stdin_close_asked_) EndStdin();
}

void ExecSession::EndStdin() {
  stdin_.Close();
  if (const size_t dropped = DropStdin(); dropped > 0) peer_->OnStdinDropped(dropped);
}

void ExecSession::CloseStdin() {
  stdin_close_asked_ = true;
  WriteStdin();
  UpdateInterest();
}

void ExecSession::Resize(const v1::Terminal& size) {
  if (!out_.pipe.open()) return;
  const winsize window = WindowOf(size);
  ioctl(out_.pipe.fd(), TIOCSWINSZ, &window);
}

void ExecSession::Kill(uint32_t signal) {
  if (signal == 0 || signal == SIGKILL) {
    KillTree();
  } else if (!reaped_ && signal < static_cast<uint32_t>(NSIG)) {
    kill(child_pid_, static_cast<int>(signal));
  }
}

void ExecSession::KillTree() {
  if (kill_deadline_us_ != 0) return;
  kill_deadline_us_ = NowMicros() + kKillGiveUpMicros;
  drop_output_ = true;
  EndStdin();
  if (!cgroup_.valid() || !cgroup_.KillAll().ok()) {
    // Without a cgroup the session that the command leads is all that can be named.
    if (!reaped_) kill(-child_pid_, SIGKILL);
  }
  UpdateInterest();
}

void ExecSession::KillLeftovers() {
  if (finished_ && cgroup_.valid()) [[maybe_unused]] const Error error = cgroup_.KillAll();
}

void ExecSession::OnReaped(int wait_status) {
  reaped_ = true;
  wait_status_ = wait_status;
  ended_us_ = NowMicros();
  ReadStatus();
  EndStdin();
  ReadOutput(&out_);
  ReadOutput(&err_);
  UpdateInterest();
  FinishIfDone();
}

uint64_t ExecSession::NextWakeMicros() const {
  if (finished_) return 0;
  if (kill_deadline_us_ != 0) return NowMicros() + kKillPollMicros;
  // Read on a little at a time: a pipe that is never empty is no reason to starve the others.
  if (reaped_ && (MayRead(out_) || MayRead(err_))) return NowMicros();
  if (limits_.timeout_ms == 0 || drop_output_) return 0;
  return started_us_ + static_cast<uint64_t>(limits_.timeout_ms) * 1000;
}

void ExecSession::OnTime(uint64_t now_us) {
  if (kill_deadline_us_ == 0 && limits_.timeout_ms != 0 &&
      now_us >= started_us_ + static_cast<uint64_t>(limits_.timeout_ms) * 1000) {
    if (reaped_) {
      drop_output_ = true;  // it ended in time; only the host is slow to take its output
    } else {
      timed_out_ = true;
      KillTree();
    }
  }
  if (reaped_) {
    ReadOutput(&out_);
    ReadOutput(&err_);
    UpdateInterest();
  }
  FinishIfDone();
}

void ExecSession::UpdateInterest() {
  stdin_.Watch(!stdin_queue_.empty());
  out_.pipe.Watch(MayRead(out_));
  err_.pipe.Watch(MayRead(err_));
}

void ExecSession::FinishIfDone() {
  if (finished_) return;
  const bool killing = kill_deadline_us_ != 0;
  const bool gave_up = killing && NowMicros() >= kill_deadline_us_;
  if (!reaped_) {
    if (!gave_up) return;
    wait_status_ = SIGKILL;  // stuck in the kernel; it dies as soon as it comes back
    ended_us_ = NowMicros();
    reaped_ = true;
  }
  if (killing && !tree_dead_) {
    tree_dead_ = gave_up || !cgroup_.valid() || cgroup_.Empty();
    if (!tree_dead_) return;
    ReadOutput(&out_);
    ReadOutput(&err_);
    UpdateInterest();
  }
  if (!gave_up && !(out_.done && err_.done)) return;
  finished_ = true;
  out_.pipe.Watch(false);
  err_.pipe.Watch(false);
  SendEnd();
}

void ExecSession::SendEnd() {
  ReadStatus();
  if (!failure_.ok()) return peer_->OnFailed(failure_);
  v1::ExecExit exit;
  if (WIFSIGNALED(wait_status_)) {
    exit.set_exit_code(128 + WTERMSIG(wait_status_));
    exit.set_signal(SignalName(WTERMSIG(wait_status_)));
  } else {
    exit.set_exit_code(WEXITSTATUS(wait_status_));
  }
  exit.set_stdout_bytes(out_.total);
  exit.set_stderr_bytes(err_.total);
  exit.set_timed_out(timed_out_);
  exit.set_duration_us(ended_us_ - started_us_);
  peer_->OnExit(exit);
}

}  // namespace bunker::guest
