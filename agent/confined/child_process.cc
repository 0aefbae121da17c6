#include "agent/confined/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/base/log.h"
#include "common/base/reason.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

namespace bunker::agent {
namespace {

constexpr int kFirstFd = 3;
// Above every target number and, with 256 layers, below the usual limit of 1024.
constexpr int kParkingFd = 600;
constexpr size_t kMaxStderrBytes = 4096;
// How long a change of `remaining` may go unseen.
constexpr int kMaxPollMs = 1000;

// Between fork and exec, in a process whose other threads are gone: system calls only.
[[noreturn]] void ExecChild(const char* name, const char* argument, const int* fds, int count,
                            int null_fd, int stderr_fd) {
  // Out of the way first, for a source may lie where a target goes.
  int parked[kParkingFd];
  bool ok = true;
  for (int i = 0; i < count; ++i) {
    parked[i] = fcntl(fds[i], F_DUPFD, kParkingFd);
    ok = ok && parked[i] >= 0;
  }
  ok = ok && dup2(stderr_fd, 2) == 2 && dup2(null_fd, 0) == 0 && dup2(null_fd, 1) == 1;
  for (int i = 0; i < count; ++i) ok = ok && dup2(parked[i], kFirstFd + i) == kFirstFd + i;
  ok = ok && syscall(SYS_close_range, kFirstFd + count, ~0u, 0) == 0;
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  char* argv[] = {const_cast<char*>(name), const_cast<char*>(argument), nullptr};
  char* environment[] = {nullptr};
  if (ok) execve("/proc/self/exe", argv, environment);
  _exit(127);
}

// False at the end of the pipe.
bool ReadSome(int fd, std::string* out) {
  char buffer[65536];
  const ssize_t count = read(fd, buffer, sizeof(buffer));
  if (count < 0) return errno == EINTR || errno == EAGAIN;
  out->assign(buffer, static_cast<size_t>(count));
  return count > 0;
}

}  // namespace

absl::Status ChildProcess::Start(const char* name, const char* argument,
                                 const std::vector<int>& fds) {
  BUNKER_CHECK(fds.size() < kParkingFd / 2);
  int events[2];
  int errors[2];
  if (pipe2(events, O_CLOEXEC) != 0) return ErrnoError(errno, "pipe2");
  events_.reset(events[0]);
  const UniqueFd events_out(events[1]);
  if (pipe2(errors, O_CLOEXEC) != 0) return ErrnoError(errno, "pipe2");
  errors_.reset(errors[0]);
  const UniqueFd errors_out(errors[1]);
  const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return ErrnoError(errno, "opening /dev/null");
  std::vector<int> sources = fds;
  std::replace(sources.begin(), sources.end(), kEventPipe, events_out.get());

  const pid_t pid = fork();
  if (pid < 0) return ErrnoError(errno, "fork");
  if (pid == 0) {
    ExecChild(name, argument, sources.data(), static_cast<int>(sources.size()), null.get(),
              errors_out.get());
  }
  // Ours alone to reap, so the number can't have been given to another process yet.
  pidfd_.reset(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd_) {
    const int error_number = errno;
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return ErrnoError(error_number, "pidfd_open");
  }
  running_ = true;
  return absl::OkStatus();
}

ChildProcess::~ChildProcess() {
  if (!running_) return;
  Kill();
  Reap();
}

void ChildProcess::Kill() {
  if (pidfd_) syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
}

ChildEnd ChildProcess::Reap() {
  ChildEnd end;
  siginfo_t info{};
  const auto pidfd = static_cast<id_t>(pidfd_.get());
  while (waitid(static_cast<idtype_t>(P_PIDFD), pidfd, &info, WEXITED) != 0) {
    if (errno != EINTR) {
      running_ = false;
      return end;
    }
  }
  running_ = false;
  if (info.si_code == CLD_EXITED) {
    end.exit_code = info.si_status;
  } else {
    end.signal = info.si_status;
  }
  return end;
}

bool ChildProcess::TakeFrames(FrameBuffer* frames, const FrameHandler& on_frame) {
  std::string bytes, payload;
  const bool more_to_come = ReadSome(events_.get(), &bytes);
  frames->Append(bytes.data(), bytes.size());
  absl::StatusOr<bool> more = frames->Next(&payload);
  for (; more.ok() && *more; more = frames->Next(&payload)) on_frame(payload);
  if (!more.ok() || !more_to_come) events_.reset();
  return more.ok();
}

ChildEnd ChildProcess::Wait(const std::function<absl::Duration()>& remaining,
                            const FrameHandler& on_frame) {
  FrameBuffer frames;
  std::string bytes, errors;
  bool timed_out = false;
  bool ended = false;
  bool broke_framing = false;
  // Pipes are the child's to close whenever it likes: that it has ended is the kernel's word alone.
  while (!ended || events_ || errors_) {
    const absl::Duration left = remaining();
    if (left <= absl::ZeroDuration() && !timed_out) {
      timed_out = true;
      Kill();
    }
    pollfd polled[3] = {{events_.get(), POLLIN, 0},
                        {errors_.get(), POLLIN, 0},
                        {ended ? -1 : pidfd_.get(), POLLIN, 0}};
    const int64_t left_ms = absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1)));
    // What a child that has ended left in its pipes is there already.
    const int wait_ms = ended ? 0 : static_cast<int>(std::clamp<int64_t>(left_ms, 1, kMaxPollMs));
    const int ready = poll(polled, 3, timed_out && !ended ? kMaxPollMs : wait_ms);
    if (ready < 0 && errno != EINTR) break;
    if (ready == 0 && ended) break;
    if (ready <= 0) continue;
    if (polled[0].revents != 0 && !TakeFrames(&frames, on_frame)) {
      broke_framing = true;
      Kill();
    }
    if (polled[1].revents != 0) {
      bytes.clear();
      if (!ReadSome(errors_.get(), &bytes)) errors_.reset();
      errors.append(bytes, 0, kMaxStderrBytes - std::min(kMaxStderrBytes, errors.size()));
    }
    if (polled[2].revents != 0) ended = true;
  }
  if (!ended) Kill();
  ChildEnd end = Reap();
  end.broke_framing = broke_framing;
  end.timed_out = timed_out && end.signal == SIGKILL;
  end.stderr_text = std::move(errors);
  return end;
}

}  // namespace bunker::agent
