#include "agent/exec/channel_core.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

using guest::v1::ExecError;
using guest::v1::ExecExit;
using guest::v1::GuestHello;
using std::chrono::steady_clock;
using wire::FrameType;

constexpr uint64_t kMaxGarbageBytes = 16 << 20;  // before the guest answers
constexpr size_t kWriteBytes = 256 * 1024;
constexpr int kMaxPollMillis = 60'000;
constexpr absl::Duration kFirstBackoff = absl::Milliseconds(20);
constexpr absl::Duration kLastBackoff = absl::Seconds(2);
constexpr std::chrono::seconds kSteady{10};  // a session that lasted so long was a good one
constexpr size_t kMaxHelloBytes = 4096;

absl::Status Violation(std::string_view what) {
  return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                     "the guest broke the channel's rules: " + std::string(what));
}

template <typename Message>
bool Parse(const wire::Frame& frame, Message* message) {
  return message->ParseFromArray(frame.payload.data(), static_cast<int>(frame.payload.size()));
}

absl::Status SetNonBlocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
    return ErrnoError(errno, "make the channel non-blocking");
  }
  return absl::OkStatus();
}

}  // namespace

ChannelCore::ChannelCore(GuestChannel::Options options)
    : options_(std::move(options)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      last_progress_(steady_clock::now()),
      last_failure_(absl::UnavailableError("not connected yet")) {
  BUNKER_CHECK(wake_.get() >= 0);
}

void ChannelCore::Start() {
  thread_ = std::thread([this] { Run(); });
}

void ChannelCore::Stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  Wake();
  if (thread_.joinable()) thread_.join();
}

void ChannelCore::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof(one));
}

void ChannelCore::DrainWake() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = read(wake_.get(), &count, sizeof(count));
}

void ChannelCore::WaitForWake(absl::Duration duration) {
  pollfd wait{wake_.get(), POLLIN, 0};
  poll(&wait, 1, static_cast<int>(absl::ToInt64Milliseconds(duration)));
  DrainWake();
}

void ChannelCore::Run() {
  absl::Duration backoff = kFirstBackoff;
  for (;;) {
    absl::Status why;
    const SteadyTime begun = steady_clock::now();
    if (auto connection = options_.connect(); connection.ok()) {
      why = Serve(connection->get());
    } else {
      why = connection.status();
    }
    bool was_ready = false;
    {
      MutexLock lock(mutex_);
      was_ready = ready_;
    }
    LoseSession(why);
    {
      MutexLock lock(mutex_);
      if (stopping_) return;
    }
    if (was_ready) {
      Log(Severity::kWarning, "guest.channel.lost",
          {{"bunker", options_.name}, {"why", why.ToString()}});
      // A guest that breaks the rules each time is not called, and logged, fifty times a second.
      if (steady_clock::now() - begun > kSteady) backoff = kFirstBackoff;
    }
    WaitForWake(backoff);
    {
      MutexLock lock(mutex_);
      if (stopping_) return;
    }
    backoff = std::min(backoff * 2, kLastBackoff);
  }
}

// Serves one connection until it ends; the error says why.
absl::Status ChannelCore::Serve(int fd) {
  RETURN_IF_ERROR(SetNonBlocking(fd));
  SystemRng rng;
  wire::HostSession session(rng.Next());
  out_ = wire::HostGreeting(session.epoch());
  out_written_ = 0;
  last_progress_ = steady_clock::now();
  {
    MutexLock lock(mutex_);
    epoch_ = session.epoch();
    unsent_bytes_ = out_.size();
  }
  for (;;) {
    RETURN_IF_ERROR(WriteSome(fd, session.ready()));
    short interest = POLLIN;
    if (out_written_ < out_.size()) interest |= POLLOUT;
    pollfd waits[2] = {{fd, interest, 0}, {wake_.get(), POLLIN, 0}};
    if (poll(waits, 2, WaitMillis(session.ready())) < 0 && errno != EINTR) {
      return ErrnoError(errno, "wait for the guest");
    }
    if (waits[1].revents != 0) DrainWake();
    {
      MutexLock lock(mutex_);
      if (stopping_) {
        return ReasonError(absl::StatusCode::kCancelled, "CANCELLED",
                           "the channel to the guest was closed");
      }
    }
    if (waits[0].revents & (POLLIN | POLLHUP | POLLERR)) {
      RETURN_IF_ERROR(ReadSome(fd, &session));
    }
    ExpireExecs();
  }
}

absl::Status ChannelCore::WriteSome(int fd, bool ready) {
  for (;;) {
    if (out_written_ == out_.size()) {
      out_.clear();
      out_written_ = 0;
      OfferStdinRoom();
      OfferFileRoom();
      SendSizes();
      MutexLock lock(mutex_);
      while (!queue_.empty() && out_.size() < kWriteBytes) {
        out_.append(queue_.front());
        queue_.pop_front();
      }
      if (out_.empty()) {
        last_progress_ = steady_clock::now();
        return absl::OkStatus();
      }
    }
    const ssize_t written = write(fd, out_.data() + out_written_, out_.size() - out_written_);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      // A guest that boots may take its time; one that answered before has stopped listening.
      const auto stalled = absl::FromChrono(steady_clock::now() - last_progress_);
      if (ready && stalled > options_.stall_timeout) {
        return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                           "the guest takes nothing from its channel any more");
      }
      return absl::OkStatus();
    }
    if (written < 0) return ErrnoError(errno, "write to the guest");
    out_written_ += static_cast<size_t>(written);
    last_progress_ = steady_clock::now();
    MutexLock lock(mutex_);
    unsent_bytes_ -= static_cast<size_t>(written);
  }
}

// Those who were held up by a full queue, not by credit, may go on.
void ChannelCore::OfferStdinRoom() {
  std::vector<std::shared_ptr<ExecCallbacks>> waiting;
  {
    MutexLock lock(mutex_);
    if (!std::exchange(queue_was_full_, false)) return;
    for (auto& [stream, exec] : execs_) {
      if (exec.stream.stdin_room() == 0 || !std::exchange(exec.wants_stdin_room, false)) continue;
      waiting.push_back(exec.callbacks);
    }
    changed_.notify_all();
  }
  for (const auto& callbacks : waiting) {
    if (callbacks && callbacks->on_stdin_room) callbacks->on_stdin_room();
  }
}

// Only what the guest will see: a client may change its window faster than a guest reads.
void ChannelCore::SendSizes() {
  MutexLock lock(mutex_);
  for (auto& [stream, exec] : execs_) {
    if (!exec.resize) continue;
    guest::v1::Terminal message;
    message.set_columns(exec.resize->columns);
    message.set_rows(exec.resize->rows);
    exec.resize.reset();
    Send(stream, FrameType::kResize, message.SerializeAsString());
  }
}

absl::Status ChannelCore::ReadSome(int fd, wire::HostSession* session) {
  size_t capacity = 0;
  char* room = session->parser().Reserve(&capacity);
  const ssize_t got = read(fd, room, capacity);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return absl::OkStatus();
  if (got < 0) return ErrnoError(errno, "read from the guest");
  if (got == 0) {
    return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                       "the connection to the guest ended");
  }
  session->parser().Commit(static_cast<size_t>(got));
  wire::Frame frame;
  for (;;) {
    switch (session->Next(&frame)) {
      case wire::HostSession::Event::kNeedMore:
        if (!session->ready() && session->parser().garbage_bytes() > kMaxGarbageBytes) {
          return Violation("bytes without a handshake");
        }
        return absl::OkStatus();
      case wire::HostSession::Event::kViolation:
        return Violation("a broken frame");
      case wire::HostSession::Event::kReady:
        RETURN_IF_ERROR(OnHello(frame));
        break;
      case wire::HostSession::Event::kFrame:
        RETURN_IF_ERROR(OnFrame(frame));
        break;
    }
  }
}

absl::Status ChannelCore::OnHello(const wire::Frame& frame) {
  GuestHello hello;
  if (frame.payload.size() > kMaxHelloBytes || !Parse(frame, &hello)) {
    return Violation("an unreadable hello");
  }
  MutexLock lock(mutex_);
  facts_.kernel_release = CleanGuestText(hello.kernel_release());
  facts_.uptime =
      absl::Microseconds(static_cast<int64_t>(std::min<uint64_t>(hello.uptime_us(), INT64_MAX)));
  ++facts_.sessions;
  boot_failure_ = absl::OkStatus();
  if (hello.protocol_version() != 1) {
    boot_failure_ = ReasonError(absl::StatusCode::kFailedPrecondition, "BUNKER_NOT_RUNNING",
                                "the guest speaks another protocol; rebuild its initrd with "
                                "deploy/guest-kernel");
  } else if (!hello.boot_error().empty()) {
    boot_failure_ = ReasonError(absl::StatusCode::kFailedPrecondition, "BUNKER_NOT_RUNNING",
                                "the guest did not come up: " + CleanGuestText(hello.boot_error()));
  }
  ready_ = true;
  changed_.notify_all();
  return absl::OkStatus();
}

absl::Status ChannelCore::OnFrame(const wire::Frame& frame) {
  if (wire::IsFileFrame(frame.type)) return OnFileFrame(frame);
  switch (frame.type) {
    case FrameType::kPong:
    case FrameType::kConfigured:
      if (frame.stream != 0) return Violation("a session frame on a stream");
      return OnSessionFrame(frame);
    case FrameType::kStdout:
    case FrameType::kStderr:
      return OnOutput(frame);
    case FrameType::kCredit:
      return OnCredit(frame);
    case FrameType::kExecExit:
    case FrameType::kExecError:
      return OnEnd(frame);
    case FrameType::kStarted:
    case FrameType::kGap:
      return OnNews(frame);
    case FrameType::kProcessAnswer:
      return OnAnswer(frame);
    case FrameType::kLogEnd:
      return OnLogEnd(frame);
    default:
      return Violation("a frame of unknown type");
  }
}

absl::Status ChannelCore::OnSessionFrame(const wire::Frame& frame) {
  MutexLock lock(mutex_);
  const bool is_pong = frame.type == FrameType::kPong;
  Question& question = is_pong ? pings_ : configs_;
  if (question.answered == question.asked) return Violation("an answer without a question");
  if (is_pong) {
    guest::v1::Ping pong;
    if (!Parse(frame, &pong) || pong.nonce() != question.answered + 1) {
      return Violation("a wrong pong");
    }
  } else if (!Parse(frame, &config_result_)) {
    return Violation("an unreadable answer");
  }
  ++question.answered;
  changed_.notify_all();
  return absl::OkStatus();
}

absl::Status ChannelCore::OnOutput(const wire::Frame& frame) {
  const bool is_stderr = frame.type == FrameType::kStderr;
  std::shared_ptr<ExecCallbacks> callbacks;
  bool ack = false;
  {
    MutexLock lock(mutex_);
    Exec* exec = Find(frame.stream);
    if (exec == nullptr) return Violation("output of no command");
    RETURN_IF_ERROR(exec->stream.OnOutput(is_stderr, frame.payload));
    callbacks = exec->callbacks;
    ack = exec->auto_ack || callbacks == nullptr;
  }
  if (callbacks && callbacks->on_output) callbacks->on_output(is_stderr, frame.payload);
  if (ack) AckOutput(frame.stream, frame.payload.size());
  return absl::OkStatus();
}

absl::Status ChannelCore::OnCredit(const wire::Frame& frame) {
  std::shared_ptr<ExecCallbacks> callbacks;
  {
    MutexLock lock(mutex_);
    guest::v1::Credit credit;
    Exec* exec = Find(frame.stream);
    if (exec == nullptr || !Parse(frame, &credit)) return Violation("credit of no command");
    RETURN_IF_ERROR(exec->stream.OnCredit(credit.bytes()));
    if (std::exchange(exec->wants_stdin_room, false)) callbacks = exec->callbacks;
    changed_.notify_all();
  }
  if (callbacks && callbacks->on_stdin_room) callbacks->on_stdin_room();
  return absl::OkStatus();
}

absl::Status ChannelCore::OnEnd(const wire::Frame& frame) {
  std::shared_ptr<ExecCallbacks> callbacks;
  ExecExit exit;
  ExecError error;
  ExecResult result;
  const bool ran = frame.type == FrameType::kExecExit;
  {
    MutexLock lock(mutex_);
    Exec* exec = Find(frame.stream);
    if (exec == nullptr) return Violation("the end of no command");
    if (ran && exec->type == FrameType::kProcessCall) return Violation("the end of a question");
    if (ran ? !Parse(frame, &exit) : !Parse(frame, &error)) return Violation("an unreadable end");
    if (ran) result = exec->stream.OnExit(exit, steady_clock::now());
    callbacks = std::move(exec->callbacks);
    execs_.erase(frame.stream);
    changed_.notify_all();
  }
  if (callbacks && ran && callbacks->on_exit) callbacks->on_exit(result);
  if (callbacks && !ran && callbacks->on_error) callbacks->on_error(ExecErrorToStatus(error));
  return absl::OkStatus();
}

absl::Status ChannelCore::OnNews(const wire::Frame& frame) {
  std::shared_ptr<ExecCallbacks> callbacks;
  guest::v1::Started started;
  guest::v1::Gap gap;
  const bool is_gap = frame.type == FrameType::kGap;
  {
    MutexLock lock(mutex_);
    Exec* exec = Find(frame.stream);
    if (exec == nullptr || exec->type == FrameType::kProcessCall) {
      return Violation("news of nothing");
    }
    if (is_gap ? !Parse(frame, &gap) : !Parse(frame, &started)) return Violation("unreadable news");
    RETURN_IF_ERROR(is_gap ? exec->stream.OnGap(gap.bytes()) : exec->stream.OnStarted());
    callbacks = exec->callbacks;
  }
  if (!callbacks) return absl::OkStatus();
  if (is_gap && callbacks->on_gap) callbacks->on_gap(gap.bytes());
  if (!is_gap && callbacks->on_started) callbacks->on_started(started.pid());
  return absl::OkStatus();
}

absl::Status ChannelCore::OnAnswer(const wire::Frame& frame) {
  std::shared_ptr<ExecCallbacks> callbacks;
  guest::v1::ProcessAnswer answer;
  {
    MutexLock lock(mutex_);
    Exec* exec = Find(frame.stream);
    if (exec == nullptr || exec->type != FrameType::kProcessCall || !Parse(frame, &answer)) {
      return Violation("an answer that was not asked for");
    }
    callbacks = std::move(exec->callbacks);
    execs_.erase(frame.stream);
    changed_.notify_all();
  }
  if (callbacks && callbacks->on_answer) callbacks->on_answer(answer);
  return absl::OkStatus();
}

absl::Status ChannelCore::OnLogEnd(const wire::Frame& frame) {
  std::shared_ptr<ExecCallbacks> callbacks;
  guest::v1::LogEnd end;
  {
    MutexLock lock(mutex_);
    Exec* exec = Find(frame.stream);
    if (exec == nullptr || exec->type != FrameType::kProcessAttach || !Parse(frame, &end)) {
      return Violation("the end of no log");
    }
    callbacks = std::move(exec->callbacks);
    execs_.erase(frame.stream);
    changed_.notify_all();
  }
  if (callbacks && callbacks->on_log_end) callbacks->on_log_end(end.next_offset());
  return absl::OkStatus();
}

// The guest promised to end a command in time. Where it does not, the caller waits no longer; the
// stream stays known until the guest speaks of it or the session ends.
void ChannelCore::ExpireExecs() {
  const SteadyTime now = steady_clock::now();
  std::vector<std::shared_ptr<ExecCallbacks>> expired;
  {
    MutexLock lock(mutex_);
    for (auto& [stream, exec] : execs_) {
      if (!exec.callbacks || !exec.stream.deadline() || now < *exec.stream.deadline()) continue;
      expired.push_back(std::move(exec.callbacks));
      SendKill(stream, &exec);
    }
  }
  for (const auto& callbacks : expired) {
    if (!callbacks->on_error) continue;
    callbacks->on_error(ReasonError(absl::StatusCode::kDeadlineExceeded, "UPSTREAM_TIMEOUT",
                                    "the guest did not say in time how the command ended"));
  }
}

void ChannelCore::LoseSession(const absl::Status& why) {
  std::map<uint32_t, Exec> lost;
  {
    MutexLock lock(mutex_);
    ready_ = false;
    last_failure_ = why;
    lost.swap(execs_);
    queue_.clear();
    unsent_bytes_ = 0;
    pings_ = configs_ = Question{};
    changed_.notify_all();
  }
  out_.clear();
  out_written_ = 0;
  for (const auto& [stream, exec] : lost) {
    if (exec.callbacks && exec.callbacks->on_error) exec.callbacks->on_error(why);
  }
  LoseFiles(why);
}

int ChannelCore::WaitMillis(bool ready) {
  SteadyTime wake = steady_clock::now() + std::chrono::milliseconds(kMaxPollMillis);
  if (ready && out_written_ < out_.size()) {
    wake = std::min(wake, last_progress_ + absl::ToChronoMilliseconds(options_.stall_timeout));
  }
  {
    MutexLock lock(mutex_);
    for (const auto& [stream, exec] : execs_) {
      if (exec.callbacks && exec.stream.deadline()) wake = std::min(wake, *exec.stream.deadline());
    }
  }
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(wake - steady_clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left + 1, 1, kMaxPollMillis));
}

}  // namespace bunker::agent
