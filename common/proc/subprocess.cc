#include "common/proc/subprocess.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/proc/deadline.h"

namespace bunker {
namespace {

constexpr absl::Duration kReapTimeout = absl::Seconds(5);

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};

absl::StatusOr<Pipe> MakePipe() {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return ErrnoError(errno, "pipe2");
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

// stdin is a socket: a helper that closes it early then costs an EPIPE, not a SIGPIPE.
absl::StatusOr<Pipe> MakeStdin() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    return ErrnoError(errno, "socketpair");
  }
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& text : strings) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// posix_spawn with a clean slate; the child leads a process group of its own.
absl::StatusOr<ProcessHandle> Spawn(const std::vector<std::string>& argv,
                                    const std::vector<std::string>& env, int in, int out, int err) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  if (posix_spawn_file_actions_init(&actions) != 0 || posix_spawnattr_init(&attributes) != 0) {
    return absl::ResourceExhaustedError("posix_spawn: out of memory");
  }
  posix_spawn_file_actions_adddup2(&actions, in, 0);
  posix_spawn_file_actions_adddup2(&actions, out, 1);
  posix_spawn_file_actions_adddup2(&actions, err, 2);
  posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                            POSIX_SPAWN_SETPGROUP);
  pid_t pid = 0;
  const int error = posix_spawn(&pid, argv[0].c_str(), &actions, &attributes, Pointers(argv).data(),
                                Pointers(env).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return ErrnoError(error, absl::StrCat("start ", argv[0]));
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) return ErrnoError(errno, "pidfd_open of a child");
  return ProcessHandle::ForChild(std::move(pidfd), pid);
}

// Reads once; keeps up to `max` bytes. False at end of file or error.
bool ReadSome(int fd, size_t max, std::string* kept, bool* truncated) {
  std::array<char, 16 * 1024> chunk;
  const ssize_t count = read(fd, chunk.data(), chunk.size());
  if (count < 0) return errno == EINTR || errno == EAGAIN;
  if (count == 0) return false;
  const size_t room = max - std::min(max, kept->size());
  const size_t taken = std::min(room, static_cast<size_t>(count));
  kept->append(chunk.data(), taken);
  if (taken < static_cast<size_t>(count)) *truncated = true;
  return true;
}

// Ends the whole group while its leader is not yet reaped: until then the group's number can't
// go to anybody else.
void KillGroup(pid_t leader) { kill(-leader, SIGKILL); }

// Moves bytes until the leader has ended and its pipes are drained. OK, or why to give up.
absl::Status Pump(ProcessHandle& process, const CommandOptions& options, int wake_fd, Pipe& in,
                  Pipe& out, Pipe& err, CancelToken* cancel, CommandResult& result) {
  const Deadline deadline(options.timeout);
  size_t written = 0;
  if (options.stdin_data.empty()) in.write_end.reset();
  while (true) {
    if (cancel != nullptr) RETURN_IF_ERROR(cancel->Check());
    if (deadline.Expired()) {
      return absl::DeadlineExceededError(
          absl::StrCat("still running after ", absl::FormatDuration(options.timeout)));
    }
    std::array<pollfd, 5> fds = {{{process.fd(), POLLIN, 0},
                                  {out.read_end.get(), POLLIN, 0},
                                  {err.read_end.get(), POLLIN, 0},
                                  {in.write_end.get(), POLLOUT, 0},
                                  {wake_fd, POLLIN, 0}}};
    if (poll(fds.data(), fds.size(), deadline.PollTimeoutMs()) < 0) {
      if (errno == EINTR) continue;
      return ErrnoError(errno, "poll");
    }
    if (fds[3].revents != 0) {
      const std::string_view rest = std::string_view(options.stdin_data).substr(written);
      const ssize_t count =
          send(in.write_end.get(), rest.data(), rest.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (count > 0) written += static_cast<size_t>(count);
      const bool gave_up = count < 0 && errno != EAGAIN && errno != EINTR;
      if (gave_up || written == options.stdin_data.size()) in.write_end.reset();
    }
    bool progress = false;
    if (fds[1].revents != 0) {
      progress = ReadSome(out.read_end.get(), options.max_output_bytes, &result.stdout_data,
                          &result.truncated);
      if (!progress) out.read_end.reset();
    }
    if (fds[2].revents != 0) {
      const bool more = ReadSome(err.read_end.get(), options.max_output_bytes, &result.stderr_data,
                                 &result.truncated);
      if (!more) err.read_end.reset();
      progress = progress || more;
    }
    // The leader has ended and nothing is left to read: a grandchild that kept the pipe open is
    // not waited for.
    if (fds[0].revents != 0 && !progress) return absl::OkStatus();
  }
}

}  // namespace

absl::StatusOr<CommandResult> RunCommand(const std::vector<std::string>& argv,
                                         const CommandOptions& options, CancelToken* cancel) {
  if (argv.empty() || argv[0].empty() || argv[0][0] != '/') {
    return absl::InvalidArgumentError("a command's program must be an absolute path");
  }
  if (cancel != nullptr) RETURN_IF_ERROR(cancel->Check());
  ASSIGN_OR_RETURN(Pipe in, MakeStdin());
  ASSIGN_OR_RETURN(Pipe out, MakePipe());
  ASSIGN_OR_RETURN(Pipe err, MakePipe());
  const UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return ErrnoError(errno, "eventfd");
  std::vector<std::string> env;
  for (const auto& [name, value] : options.env) env.push_back(absl::StrCat(name, "=", value));

  ASSIGN_OR_RETURN(ProcessHandle process, Spawn(argv, env, in.read_end.get(), out.write_end.get(),
                                                err.write_end.get()));
  in.read_end.reset();
  out.write_end.reset();
  err.write_end.reset();
  if (cancel != nullptr) {
    cancel->SetCallback([fd = wake.get()] { eventfd_write(fd, 1); });
  }
  CommandResult result;
  const absl::Status pumped = Pump(process, options, wake.get(), in, out, err, cancel, result);
  if (cancel != nullptr) cancel->ClearCallback();
  KillGroup(process.pid());
  absl::StatusOr<ProcessExit> exit = process.Wait(kReapTimeout);
  if (!pumped.ok()) {
    const std::string& words = result.stderr_data;
    const std::string last = words.substr(words.size() - std::min<size_t>(512, words.size()));
    return Annotate(pumped, absl::StrCat(argv[0], " (stderr: ", last, ")"));
  }
  if (!exit.ok()) return Annotate(exit.status(), argv[0]);
  result.exit = *exit;
  return result;
}

}  // namespace bunker
