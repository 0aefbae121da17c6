#include "agent/guest/main_program.h"

#include <algorithm>
#include <utility>

namespace bunker::guest {
namespace {

using Program = v1::MainProgram;
using Row = v1::MainRow;

v1::ExecStart StartOf(const Program& program) {
  v1::ExecStart start;
  *start.mutable_argv() = program.argv();
  *start.mutable_env() = program.env();
  start.set_allow_root(program.allow_root());
  start.set_default_to_1000(program.default_to_1000());
  return start;
}

}  // namespace

MainProgram::MainProgram(const Program& program, Launcher* launcher, Poller* poller, char* scratch,
                         uint64_t token_base, Listener listener)
    : start_(StartOf(program)),
      restart_(program.restart()),
      launcher_(launcher),
      poller_(poller),
      scratch_(scratch),
      token_base_(token_base),
      listener_(std::move(listener)) {
  row_.set_serial(1);
  row_.set_state(Row::STARTING);
}

bool MainProgram::ended() const {
  return row_.state() == Row::EXITED || row_.state() == Row::FAILED;
}

v1::MainRow MainProgram::Row() const { return row_; }

void MainProgram::Change(Row::State state) {
  row_.set_state(state);
  row_.set_serial(row_.serial() + 1);
  listener_.on_changed();
  if (ended()) listener_.on_output();
}

void MainProgram::Start() {
  start_at_us_ = 0;
  run_began_us_ = NowMicros();
  if (start_.argv().empty()) {
    return Fail({v1::ExecError::INVALID,
                 "the image names no command; give main.args, or use an image with one"});
  }
  Launcher::Launched launched;
  if (CommandError error = launcher_->Launch(start_, &launched); !error.ok()) return Fail(error);
  session_ = std::make_unique<ExecSession>(std::move(launched.child), std::move(launched.cgroup),
                                           ExecSession::Limits{UINT64_MAX, 0}, poller_, this,
                                           scratch_, token_base_);
}

// What lacks memory or processes now may have them later; a program that isn't there never runs.
void MainProgram::Fail(const CommandError& error) {
  row_.set_message(error.message);
  const bool may_pass = error.kind == v1::ExecError::BUSY || error.kind == v1::ExecError::FAILED;
  if (may_pass && restart_ != Program::NEVER) return StartAgainLater();
  exit_.Clear();
  exit_.set_exit_code(127);  // as a shell tells of a program that can't be run
  Change(Row::FAILED);
}

void MainProgram::StartAgainLater() {
  const uint64_t now = NowMicros();
  if (now - run_began_us_ >= kSteadyRunMicros) pause_us_ = kFirstPauseMicros;
  start_at_us_ = now + pause_us_;
  pause_us_ = std::min(pause_us_ * 2, kLongestPauseMicros);
  Change(Row::WAITING);
}

void MainProgram::OnReady(ExecSession::Channel channel) {
  if (session_ != nullptr) session_->OnReady(channel);
}

void MainProgram::OnReaped(pid_t pid, int wait_status) {
  if (session_ != nullptr && session_->pid() == pid) session_->OnReaped(wait_status);
}

uint64_t MainProgram::NextWakeMicros() const {
  return session_ != nullptr ? session_->NextWakeMicros() : start_at_us_;
}

void MainProgram::OnTime(uint64_t now_us) {
  if (session_ != nullptr) {
    if (session_->NextWakeMicros() != 0) session_->OnTime(now_us);
  } else if (start_at_us_ != 0 && now_us >= start_at_us_) {
    row_.set_restarts(row_.restarts() + 1);
    Start();
  }
}

void MainProgram::Collect() {
  if (session_ == nullptr || !session_->finished()) return;
  // The next run is to find neither its port taken nor its files held.
  session_->KillLeftovers();
  listener_.retire(session_.get());
  session_.reset();
}

void MainProgram::OnOutput(bool is_stderr, std::string_view data) {
  output_.Append(is_stderr, data);
  listener_.on_output();
}

void MainProgram::OnStarted(pid_t) {
  row_.clear_message();
  Change(Row::RUNNING);
}

void MainProgram::OnExit(const v1::ExecExit& exit) {
  exit_ = exit;
  row_.set_ended(true);
  row_.set_exit_code(exit.exit_code());
  row_.set_signal(exit.signal());
  const bool failed = exit.exit_code() != 0 || !exit.signal().empty();
  if (restart_ == Program::ALWAYS || (restart_ == Program::ON_FAILURE && failed)) {
    return StartAgainLater();
  }
  Change(Row::EXITED);
}

void MainProgram::OnFailed(const CommandError& error) { Fail(error); }

}  // namespace bunker::guest
