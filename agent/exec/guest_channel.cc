#include "agent/exec/guest_channel.h"

#include <algorithm>
#include <utility>

#include "agent/exec/channel_core.h"
#include "common/base/reason.h"

namespace bunker::agent {
namespace {

using std::chrono::steady_clock;
using wire::FrameType;

constexpr size_t kMaxExecs = 64;
constexpr size_t kMaxUnsentBytes = 2 << 20;
constexpr uint32_t kQuestionMillis = 30'000;

steady_clock::time_point DeadlineIn(absl::Duration timeout) {
  const absl::Duration bounded = std::clamp(timeout, absl::ZeroDuration(), absl::Hours(24));
  return steady_clock::now() + absl::ToChronoMilliseconds(bounded);
}

absl::Status TooSlow(std::string_view what) {
  return ReasonError(absl::StatusCode::kDeadlineExceeded, "UPSTREAM_TIMEOUT", what);
}

absl::Status Unavailable(std::string_view what) {
  return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE", what);
}

}  // namespace

// ---- ChannelCore: what callers do --------------------------------------------------------------

void ChannelCore::Send(uint32_t stream, FrameType type, std::string_view payload) {
  std::string frame = wire::EncodeFrame(epoch_, stream, type, payload);
  unsent_bytes_ += frame.size();
  queue_.push_back(std::move(frame));
  Wake();
}

ChannelCore::Exec* ChannelCore::Find(uint32_t stream) {
  const auto found = execs_.find(stream);
  return found == execs_.end() ? nullptr : &found->second;
}

absl::Status ChannelCore::NotReady() const {
  if (!ready_) {
    return Annotate(Unavailable(std::string(last_failure_.message())), "the guest does not answer");
  }
  return boot_failure_;
}

absl::Status ChannelCore::WaitReady(absl::Duration timeout, CancelToken* cancel) {
  const auto deadline = DeadlineIn(timeout);
  MutexLock lock(mutex_);
  while (!ready_) {
    if (cancel != nullptr && cancel->cancelled()) return cancel->Check();
    if (stopping_) return Unavailable("the channel is closed");
    const auto now = steady_clock::now();
    if (now >= deadline) {
      return TooSlow("the guest did not answer in time: " + std::string(last_failure_.message()));
    }
    // The token can't wake a condition; looking at it now and then is soon enough.
    const auto step = cancel != nullptr ? now + std::chrono::milliseconds(20) : deadline;
    changed_.wait_until(lock.native(), std::min(deadline, step));
  }
  return boot_failure_;
}

bool ChannelCore::ready() const {
  MutexLock lock(mutex_);
  return ready_ && boot_failure_.ok();
}

GuestFacts ChannelCore::facts() const {
  MutexLock lock(mutex_);
  return facts_;
}

absl::Status ChannelCore::Configure(const guest::v1::GuestConfig& config, absl::Duration timeout) {
  const std::string payload = config.SerializeAsString();
  if (payload.size() > wire::kMaxPayloadBytes) {
    return ReasonError(absl::StatusCode::kInvalidArgument, "VALIDATION_ERROR",
                       "the environment is larger than 256 KiB");
  }
  const auto deadline = DeadlineIn(timeout);
  MutexLock lock(mutex_);
  if (absl::Status status = NotReady(); !status.ok()) return status;
  const int session = facts_.sessions;
  const uint64_t mine = ++configs_.asked;
  Send(0, FrameType::kConfigure, payload);
  while (ready_ && facts_.sessions == session && configs_.answered < mine) {
    if (steady_clock::now() >= deadline) return TooSlow("the guest did not take its configuration");
    changed_.wait_until(lock.native(), deadline);
  }
  if (!ready_ || facts_.sessions != session) {
    return Annotate(last_failure_, "configure the guest");
  }
  if (config_result_.problems_size() == 0) return absl::OkStatus();
  return ReasonError(absl::StatusCode::kFailedPrecondition, "INTERNAL",
                     "the guest could not: " + CleanGuestText(config_result_.problems(0)));
}

absl::StatusOr<absl::Duration> ChannelCore::Ping(absl::Duration timeout) {
  const auto started = steady_clock::now();
  const auto deadline = DeadlineIn(timeout);
  MutexLock lock(mutex_);
  if (absl::Status status = NotReady(); !status.ok()) return status;
  const int session = facts_.sessions;
  guest::v1::Ping ping;
  ping.set_nonce(++pings_.asked);
  Send(0, FrameType::kPing, ping.SerializeAsString());
  while (ready_ && facts_.sessions == session && pings_.answered < ping.nonce()) {
    if (steady_clock::now() >= deadline) return TooSlow("the guest did not answer a ping");
    changed_.wait_until(lock.native(), deadline);
  }
  if (!ready_ || facts_.sessions != session) return Annotate(last_failure_, "ping the guest");
  return absl::FromChrono(steady_clock::now() - started);
}

absl::StatusOr<uint32_t> ChannelCore::Open(FrameType type, const std::string& payload,
                                           const ExecSpec& spec, ExecCallbacks callbacks) {
  if (payload.size() > wire::kMaxPayloadBytes) {
    return ReasonError(absl::StatusCode::kInvalidArgument, "VALIDATION_ERROR",
                       "command and environment are larger than 256 KiB; pass data by stdin");
  }
  MutexLock lock(mutex_);
  if (absl::Status status = NotReady(); !status.ok()) return status;
  if (execs_.size() >= kMaxExecs || unsent_bytes_ > kMaxUnsentBytes) {
    return ReasonError(absl::StatusCode::kResourceExhausted, "RATE_LIMITED",
                       "64 commands run in this bunker already; wait for one to end");
  }
  const uint32_t stream = ++last_stream_;
  Exec& exec = execs_
                   .emplace(stream, Exec{ExecStream(spec, steady_clock::now()),
                                         std::make_shared<ExecCallbacks>(std::move(callbacks)),
                                         spec.auto_ack, type})
                   .first->second;
  if (type == FrameType::kProcessAttach) exec.stream.ReadsProcess();
  Send(stream, type, payload);
  return stream;
}

absl::Status ChannelCore::Shutdown(absl::Duration grace) {
  guest::v1::Shutdown shutdown;
  shutdown.set_grace_ms(static_cast<uint32_t>(
      absl::ToInt64Milliseconds(std::clamp(grace, absl::ZeroDuration(), absl::Minutes(5)))));
  MutexLock lock(mutex_);
  if (!ready_) return NotReady();
  Send(0, FrameType::kShutdown, shutdown.SerializeAsString());
  return absl::OkStatus();
}

size_t ChannelCore::TryWriteLocked(uint32_t stream, std::string_view data) {
  Exec* exec = Find(stream);
  if (exec == nullptr || exec->stream.stdin_closed() || exec->killed) return data.size();
  size_t taken = 0;
  while (taken < data.size() && unsent_bytes_ < kMaxUnsentBytes) {
    const size_t step =
        std::min<size_t>({data.size() - taken, exec->stream.stdin_room(), wire::kMaxDataBytes});
    if (step == 0) break;
    Send(stream, FrameType::kStdin, data.substr(taken, step));
    exec->stream.SpendStdin(static_cast<uint32_t>(step));
    taken += step;
  }
  if (taken < data.size()) {
    exec->wants_stdin_room = true;
    if (unsent_bytes_ >= kMaxUnsentBytes) queue_was_full_ = true;
  }
  return taken;
}

size_t ChannelCore::TryWriteStdin(uint32_t stream, std::string_view data) {
  MutexLock lock(mutex_);
  return TryWriteLocked(stream, data);
}

absl::Status ChannelCore::WriteStdin(uint32_t stream, std::string_view data,
                                     absl::Duration timeout) {
  const auto deadline = DeadlineIn(timeout);
  MutexLock lock(mutex_);
  for (;;) {
    data.remove_prefix(TryWriteLocked(stream, data));
    if (data.empty()) return absl::OkStatus();
    if (steady_clock::now() >= deadline) return TooSlow("the command does not read its stdin");
    changed_.wait_until(lock.native(), deadline);
  }
}

void ChannelCore::CloseStdin(uint32_t stream) {
  MutexLock lock(mutex_);
  Exec* exec = Find(stream);
  if (exec == nullptr || exec->stream.stdin_closed()) return;
  exec->stream.CloseStdin();
  Send(stream, FrameType::kStdinClose, {});
}

void ChannelCore::SendKill(uint32_t stream, Exec* exec) {
  if (std::exchange(exec->killed, true)) return;
  exec->stream.ExpectEnd(steady_clock::now());
  Send(stream, FrameType::kKill, guest::v1::Kill().SerializeAsString());
}

void ChannelCore::Kill(uint32_t stream) {
  MutexLock lock(mutex_);
  if (Exec* exec = Find(stream); exec != nullptr) SendKill(stream, exec);
}

void ChannelCore::Detach(uint32_t stream) {
  std::shared_ptr<ExecCallbacks> dropped;  // destroyed after the lock is gone
  MutexLock lock(mutex_);
  Exec* exec = Find(stream);
  if (exec == nullptr) return;
  dropped = std::move(exec->callbacks);
  SendKill(stream, exec);
  AckLocked(stream, exec, wire::kWindowBytes);
}

void ChannelCore::AckLocked(uint32_t stream, Exec* exec, size_t bytes) {
  const uint32_t grant = exec->stream.AckOutput(bytes);
  if (grant == 0) return;
  guest::v1::Credit credit;
  credit.set_bytes(grant);
  Send(stream, FrameType::kCredit, credit.SerializeAsString());
}

void ChannelCore::AckOutput(uint32_t stream, size_t bytes) {
  MutexLock lock(mutex_);
  if (Exec* exec = Find(stream); exec != nullptr) AckLocked(stream, exec, bytes);
}

void ChannelCore::Resize(uint32_t stream, TerminalSize size) {
  MutexLock lock(mutex_);
  Exec* exec = Find(stream);
  if (exec == nullptr) return;
  exec->resize = size;
  Wake();
}

// ---- the public faces --------------------------------------------------------------------------

ExecHandle::ExecHandle(std::shared_ptr<ChannelCore> core, uint32_t stream)
    : core_(std::move(core)), stream_(stream) {}
ExecHandle::~ExecHandle() {
  core_->Detach(stream_);
}
size_t ExecHandle::TryWriteStdin(std::string_view data) {
  return core_->TryWriteStdin(stream_, data);
}
absl::Status ExecHandle::WriteStdin(std::string_view data, absl::Duration timeout) {
  return core_->WriteStdin(stream_, data, timeout);
}
void ExecHandle::CloseStdin() {
  core_->CloseStdin(stream_);
}
void ExecHandle::Kill() {
  core_->Kill(stream_);
}
void ExecHandle::AckOutput(size_t bytes) {
  core_->AckOutput(stream_, bytes);
}
void ExecHandle::Resize(TerminalSize size) {
  core_->Resize(stream_, size);
}

GuestChannel::GuestChannel(Options options)
    : core_(std::make_shared<ChannelCore>(std::move(options))) {
  core_->Start();
}
GuestChannel::~GuestChannel() {
  core_->Stop();
}

absl::Status GuestChannel::WaitReady(absl::Duration timeout, CancelToken* cancel) {
  return core_->WaitReady(timeout, cancel);
}
bool GuestChannel::ready() const {
  return core_->ready();
}
GuestFacts GuestChannel::facts() const {
  return core_->facts();
}
absl::Status GuestChannel::Configure(const guest::v1::GuestConfig& config, absl::Duration timeout) {
  return core_->Configure(config, timeout);
}
absl::StatusOr<absl::Duration> GuestChannel::Ping(absl::Duration timeout) {
  return core_->Ping(timeout);
}
absl::StatusOr<std::unique_ptr<ExecHandle>> GuestChannel::Open(wire::FrameType type,
                                                               const std::string& payload,
                                                               const ExecSpec& spec,
                                                               ExecCallbacks callbacks) {
  absl::StatusOr<uint32_t> stream = core_->Open(type, payload, spec, std::move(callbacks));
  if (!stream.ok()) return stream.status();
  return std::make_unique<ExecHandle>(core_, *stream);
}
absl::StatusOr<std::unique_ptr<ExecHandle>> GuestChannel::StartExec(const ExecSpec& spec,
                                                                    ExecCallbacks callbacks) {
  return Open(FrameType::kExecStart, ToProto(spec).SerializeAsString(), spec,
              std::move(callbacks));
}
absl::StatusOr<std::unique_ptr<ExecHandle>> GuestChannel::CallProcess(
    const guest::v1::ProcessCall& call, ExecCallbacks callbacks) {
  ExecSpec spec;
  spec.max_output_bytes = 0;
  spec.open_stdin = false;
  // Of ours: a guest that says nothing is not waited for, but where it is asked for news.
  if (!call.has_main_wait()) spec.timeout_ms = kQuestionMillis;
  return Open(FrameType::kProcessCall, call.SerializeAsString(), spec, std::move(callbacks));
}
absl::StatusOr<std::unique_ptr<ExecHandle>> GuestChannel::ReadProcess(uint32_t pid,
                                                                      uint64_t offset,
                                                                      ExecCallbacks callbacks) {
  guest::v1::ProcessAttach attach;
  attach.set_pid(pid);
  attach.set_offset(offset);
  return Attach(attach, std::move(callbacks));
}
absl::StatusOr<std::unique_ptr<ExecHandle>> GuestChannel::ReadMain(uint64_t offset, bool follow,
                                                                   ExecCallbacks callbacks) {
  guest::v1::ProcessAttach attach;
  attach.set_main(true);
  attach.set_offset(offset);
  attach.set_no_follow(!follow);
  return Attach(attach, std::move(callbacks));
}
absl::StatusOr<std::unique_ptr<ExecHandle>> GuestChannel::Attach(
    const guest::v1::ProcessAttach& attach, ExecCallbacks callbacks) {
  ExecSpec spec;
  spec.max_output_bytes = UINT64_MAX;
  spec.open_stdin = false;
  spec.auto_ack = false;
  return Open(FrameType::kProcessAttach, attach.SerializeAsString(), spec, std::move(callbacks));
}
absl::Status GuestChannel::Shutdown(absl::Duration grace) {
  return core_->Shutdown(grace);
}

}  // namespace bunker::agent
