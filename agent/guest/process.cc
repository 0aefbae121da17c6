#include "agent/guest/process.h"

#include <algorithm>
#include <utility>

namespace bunker::guest {
namespace {

constexpr size_t kShownBytes = 1024;

ExecSession::Limits LimitsOf(const v1::ExecStart& start) {
  return {UINT64_MAX, start.timeout_ms()};
}

// At most `max_bytes` of it, without half a character.
std::string Shortened(const std::string& text, size_t max_bytes) {
  size_t size = std::min(text.size(), max_bytes);
  while (size > 0 && size < text.size() && (text[size] & 0xc0) == 0x80) --size;
  return text.substr(0, size);
}

}  // namespace

Process::Process(const v1::ExecStart& start, Launcher::Launched launched, Poller* poller,
                 char* scratch, uint64_t token_base, Listener* listener)
    : pid_(launched.child.pid),
      uid_(launched.uid),
      privileged_(start.allow_root()),
      listener_(listener),
      session_(std::make_unique<ExecSession>(std::move(launched.child), std::move(launched.cgroup),
                                             LimitsOf(start), poller, this, scratch, token_base)),
      started_us_(session_->started_us()) {
  shown_.set_shell(Shortened(start.shell(), kShownBytes));
  size_t left = kShownBytes;
  for (const std::string& word : start.argv()) {
    if (left == 0) break;
    shown_.add_argv(Shortened(word, left));
    left -= std::min(left, word.size() + 1);
  }
}

v1::ProcessRow Process::Row() const {
  v1::ProcessRow row = shown_;
  row.set_pid(static_cast<uint32_t>(pid_));
  row.set_uid(uid_);
  row.set_age_us(NowMicros() - started_us_);
  row.set_output_begin(output_.begin());
  row.set_ended(ended_);
  if (ended_) {
    row.set_exit_code(exit_.exit_code());
    row.set_signal(exit_.signal());
    row.set_timed_out(exit_.timed_out());
    row.set_duration_us(exit_.duration_us());
    row.set_stdout_bytes(exit_.stdout_bytes());
    row.set_stderr_bytes(exit_.stderr_bytes());
  } else {
    row.set_stdout_bytes(session_->stdout_bytes());
    row.set_stderr_bytes(session_->stderr_bytes());
    row.set_stdin_open(session_->stdin_open());
  }
  return row;
}

bool Process::Write(uint32_t stream, const std::string& data) {
  if (write_stream_ != 0) return false;
  write_stream_ = stream;
  write_size_ = data.size();
  write_taken_ = 0;
  if (ended_ || data.empty()) {
    EndWrite();
  } else {
    session_->Feed(data);
  }
  return true;
}

void Process::StopWrite(uint32_t stream) {
  if (write_stream_ != stream || stream == 0) return;
  if (!ended_) session_->DropStdin();
  EndWrite();
}

void Process::ForgetWrite() {
  if (std::exchange(write_stream_, 0) != 0 && !ended_) session_->DropStdin();
}

void Process::EndWrite() {
  if (const uint32_t stream = std::exchange(write_stream_, 0); stream != 0) {
    listener_->OnWritten(*this, stream, write_taken_);
  }
}

void Process::OnStdinTaken(size_t bytes) {
  write_taken_ += bytes;
  if (write_taken_ >= write_size_) EndWrite();
}

void Process::OnStdinDropped(size_t) { EndWrite(); }

void Process::OnOutput(bool is_stderr, std::string_view data) {
  output_.Append(is_stderr, data);
  listener_->OnProcessNews(*this);
}

void Process::OnStarted(pid_t) {
  started_ = true;
  listener_->OnProcessStarted(*this);
}

void Process::OnExit(const v1::ExecExit& exit) {
  ended_ = true;
  ended_us_ = NowMicros();
  exit_ = exit;
  EndWrite();
  listener_->OnProcessNews(*this);
}

void Process::OnFailed(const CommandError& error) {
  ended_ = failed_ = true;
  ended_us_ = NowMicros();
  EndWrite();
  listener_->OnProcessFailed(*this, error);
}

}  // namespace bunker::guest
