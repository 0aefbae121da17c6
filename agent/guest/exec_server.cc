#include "agent/guest/exec_server.h"

#include <sys/signalfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

namespace bunker::guest {
namespace {

using wire::FrameType;

constexpr uint32_t kProtocolVersion = 1;
constexpr size_t kMaxExecs = 64;
constexpr size_t kMaxDrains = 256;
constexpr int kMaxEvents = 64;
constexpr int kPortFallbackMillis = 1000;

// Tokens: the low two bits of an exec's say which pipe.
constexpr uint64_t kPortToken = 0;
constexpr uint64_t kSignalToken = 1;
constexpr uint64_t kDrainBit = uint64_t{1} << 62;
uint64_t ExecToken(uint32_t stream) {
  return (uint64_t{1} << 40) | uint64_t{stream} << 2;
}

Fd ChildSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  return Fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

template <typename Message>
bool Parse(const wire::Frame& frame, Message* message) {
  return message->ParseFromArray(frame.payload.data(), static_cast<int>(frame.payload.size()));
}

}  // namespace

ExecServer::ExecServer(Options options)
    : options_(std::move(options)),
      launcher_(options_.cgroup_root_fd, options_.etc_folder, options_.boot_error),
      processes_(&launcher_, &poller_, &outbox_, [this](ExecSession* session) { Retire(session); }),
      files_(&launcher_, &poller_, &outbox_),
      signals_(ChildSignals()) {
  std::signal(SIGPIPE, SIG_IGN);
  outbox_.Attach(options_.port_fd);
  // Edge-triggered: a port without a host is readable at its end for ever.
  [[maybe_unused]] const Error port =
      poller_.Add(options_.port_fd, EPOLLIN | EPOLLOUT | EPOLLET, kPortToken);
  [[maybe_unused]] const Error signals = poller_.Add(signals_.get(), EPOLLIN, kSignalToken);
}

ExecServer::~ExecServer() = default;

uint32_t ExecServer::Run() {
  while (Step(kPortFallbackMillis)) {
  }
  return shutdown_grace_ms_;
}

bool ExecServer::Step(int max_wait_ms) {
  epoll_event events[kMaxEvents];
  const int count = poller_.Wait(events, kMaxEvents, WaitMillis(max_wait_ms));
  bool port_ready = count == 0;  // a wake-up that was missed costs a second, not the channel
  for (int i = 0; i < count; ++i) {
    const uint64_t token = events[i].data.u64;
    if (token == kPortToken) {
      port_ready = true;
    } else if (token == kSignalToken) {
      Reap();
    } else if ((token & kDrainBit) != 0) {
      OnDrainReady(token);
    } else if ((token & ProcessServer::kTokenBit) != 0) {
      processes_.OnReady(token);
    } else if ((token & FileServer::kTokenBit) != 0) {
      files_.OnReady(token);
    } else {
      const auto found = execs_.find(static_cast<uint32_t>((token >> 2) & UINT32_MAX));
      if (found != execs_.end()) {
        found->second.session->OnReady(static_cast<ExecSession::Channel>(token & 3));
      }
    }
  }
  if (port_ready) OnPortReady();
  RunTimers();
  Collect();
  return !shutdown_asked_;
}

int ExecServer::WaitMillis(int max_wait_ms) const {
  uint64_t wake = processes_.NextWakeMicros();
  for (const auto& [stream, exec] : execs_) {
    const uint64_t at = exec.session->NextWakeMicros();
    if (at != 0 && (wake == 0 || at < wake)) wake = at;
  }
  if (wake == 0) return max_wait_ms;
  const uint64_t now = NowMicros();
  if (wake <= now) return 0;
  return static_cast<int>(
      std::min<uint64_t>((wake - now) / 1000 + 1, static_cast<uint64_t>(max_wait_ms)));
}

void ExecServer::RunTimers() {
  const uint64_t now = NowMicros();
  for (const auto& [stream, exec] : execs_) {
    if (exec.session->NextWakeMicros() != 0) exec.session->OnTime(now);
  }
  processes_.RunTimers(now);
}

void ExecServer::OnPortReady() {
  outbox_.Flush();
  for (;;) {
    size_t capacity = 0;
    char* room = session_.parser().Reserve(&capacity);
    const ssize_t got = read(options_.port_fd, room, capacity);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;  // nothing now, or nobody connected
    session_.parser().Commit(static_cast<size_t>(got));
    wire::Frame frame;
    for (;;) {
      const auto event = session_.Next(&frame);
      if (event == wire::GuestSession::Event::kNeedMore) break;
      if (event == wire::GuestSession::Event::kNewSession) {
        StartSession();
      } else {
        OnFrame(frame);
      }
    }
  }
  outbox_.Flush();
  if (outbox_.HasRoom()) {
    for (const auto& [stream, exec] : execs_) exec.session->OnRoom();
    processes_.OnRoom();
    files_.OnRoom();
  }
}

void ExecServer::StartSession() {
  outbox_.StartSession(session_.epoch());
  // Commands of the session before have nobody left who could hear of them.
  for (auto& [stream, exec] : execs_) {
    exec.session->Kill(SIGKILL);
    Retire(exec.session.get());
  }
  execs_.clear();
  processes_.StartSession();
  files_.StartSession();
  v1::GuestHello hello;
  hello.set_protocol_version(kProtocolVersion);
  hello.set_boot_error(options_.boot_error);
  utsname names{};
  if (uname(&names) == 0) hello.set_kernel_release(names.release);
  hello.set_uptime_us(NowMicros());
  outbox_.Send(0, FrameType::kHelloAck, hello.SerializeAsString());
}

void ExecServer::OnFrame(const wire::Frame& frame) {
  if (frame.stream == 0) {
    OnSessionFrame(frame);
  } else if (wire::IsFileFrame(frame.type)) {
    files_.OnFrame(frame);
  } else {
    OnExecFrame(frame);
  }
}

void ExecServer::OnSessionFrame(const wire::Frame& frame) {
  switch (frame.type) {
    case FrameType::kPing:
      outbox_.Send(0, FrameType::kPong, frame.payload);
      break;
    case FrameType::kConfigure:
      Configure(frame);
      break;
    case FrameType::kShutdown: {
      v1::Shutdown shutdown;
      if (!Parse(frame, &shutdown)) break;
      shutdown_asked_ = true;
      shutdown_grace_ms_ = shutdown.grace_ms();
      break;
    }
    default:
      break;  // of a newer host
  }
}

void ExecServer::Configure(const wire::Frame& frame) {
  v1::GuestConfig config;
  v1::ConfigureResult result;
  if (Parse(frame, &config)) {
    launcher_.defaults().env = {config.default_env().begin(), config.default_env().end()};
    launcher_.defaults().cwd = config.default_cwd();
    launcher_.defaults().user = config.default_user();
    if (!config.hostname().empty()) launcher_.defaults().hostname = config.hostname();
    if (options_.configure) {
      for (const std::string& problem : options_.configure(config)) result.add_problems(problem);
    }
    if (config.has_main()) processes_.StartMain(config.main());
  } else {
    result.add_problems("the configuration can't be read");
  }
  outbox_.Send(0, FrameType::kConfigured, result.SerializeAsString());
  // While the answer is on its way, and before any command.
  if (options_.write_names) options_.write_names(config);
}

void ExecServer::OnExecFrame(const wire::Frame& frame) {
  if (processes_.OnFrame(frame)) return;
  if (frame.type == FrameType::kExecStart) {
    StartExec(frame);
    return;
  }
  const auto found = execs_.find(frame.stream);
  if (found == execs_.end() || found->second.session->finished()) return;  // it has ended meanwhile
  StreamPeer& peer = *found->second.peer;
  ExecSession& session = *found->second.session;
  bool kept_the_rules = true;
  switch (frame.type) {
    case FrameType::kStdin:
      kept_the_rules = !found->second.stdin_closed && peer.ReceiveStdin(frame.payload.size());
      if (kept_the_rules) session.Feed(frame.payload);
      break;
    case FrameType::kStdinClose:
      found->second.stdin_closed = true;
      session.CloseStdin();
      break;
    case FrameType::kCredit: {
      v1::Credit credit;
      kept_the_rules = Parse(frame, &credit) && peer.Grant(credit.bytes());
      if (kept_the_rules) session.OnRoom();
      break;
    }
    case FrameType::kKill: {
      v1::Kill kill;
      if (Parse(frame, &kill)) session.Kill(kill.signal());
      break;
    }
    case FrameType::kResize: {
      v1::Terminal size;
      if (Parse(frame, &size)) session.Resize(size);
      break;
    }
    default:
      break;
  }
  if (!kept_the_rules) session.Kill(SIGKILL);
}

void ExecServer::StartExec(const wire::Frame& frame) {
  v1::ExecStart start;
  if (execs_.count(frame.stream) > 0) return;
  if (!Parse(frame, &start)) {
    return SendError(&outbox_, frame.stream, {v1::ExecError::INVALID, "the request can't be read"});
  }
  if (execs_.size() >= kMaxExecs) {
    return SendError(&outbox_, frame.stream,
                     {v1::ExecError::BUSY, "64 commands run already; wait for one"});
  }
  Launcher::Launched launched;
  if (CommandError error = launcher_.Launch(start, &launched); !error.ok()) {
    return SendError(&outbox_, frame.stream, error);
  }
  Exec& exec = execs_[frame.stream];
  exec.peer = std::make_unique<StreamPeer>(frame.stream, start.tell_start(), &outbox_);
  const ExecSession::Limits limits{start.max_output_bytes(), start.timeout_ms()};
  exec.session = std::make_unique<ExecSession>(std::move(launched.child),
                                               std::move(launched.cgroup), limits, &poller_,
                                               exec.peer.get(), outbox_.DataSpace(),
                                               ExecToken(frame.stream));
}

void ExecServer::Reap() {
  signalfd_siginfo info;
  while (read(signals_.get(), &info, sizeof(info)) > 0) {
  }
  for (;;) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid <= 0) break;
    for (const auto& [stream, exec] : execs_) {
      if (exec.session->pid() == pid) exec.session->OnReaped(status);
    }
    processes_.OnReaped(pid, status);
    files_.OnReaped(pid);
  }
  old_cgroups_.erase(std::remove_if(old_cgroups_.begin(), old_cgroups_.end(),
                                    [](Cgroup& cgroup) { return cgroup.Remove(); }),
                     old_cgroups_.end());
}

void ExecServer::Collect() {
  files_.Collect();
  for (auto at = execs_.begin(); at != execs_.end();) {
    if (at->second.session->finished()) {
      Retire(at->second.session.get());
      at = execs_.erase(at);
    } else {
      ++at;
    }
  }
  processes_.Collect();
}

void ExecServer::Retire(ExecSession* exec) {
  Cgroup cgroup = exec->TakeCgroup();
  if (!cgroup.Remove()) old_cgroups_.push_back(std::move(cgroup));
  launcher_.MakeReady();
  Fd outputs[] = {exec->TakeStdout(), exec->TakeStderr()};
  for (Fd& fd : outputs) {
    // A daemon that still writes there must not be ended by a broken pipe.
    if (!fd.valid() || drains_.size() >= kMaxDrains) continue;
    const uint64_t token = kDrainBit | ++next_drain_;
    Watched drain(&poller_, std::move(fd), EPOLLIN, token);
    drain.Watch(true);
    drains_.emplace(token, std::move(drain));
  }
}

void ExecServer::OnDrainReady(uint64_t token) {
  const auto found = drains_.find(token);
  if (found == drains_.end()) return;
  const ssize_t got = read(found->second.fd(), outbox_.DataSpace(), wire::kMaxDataBytes);
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) drains_.erase(found);
}

}  // namespace bunker::guest
