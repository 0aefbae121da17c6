#include "agent/guest/spawn.h"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <string>
#include <vector>

#include "agent/guest/small_file.h"

namespace bunker::guest {
namespace {

constexpr rlim_t kSoftOpenFiles = 65536;
constexpr rlim_t kHardOpenFiles = 1048576;

enum class Stage : int { kCgroup, kStdio, kIdentity, kRootDenied, kCwd };

struct FailureRecord {
  Stage stage;
  int error_number;
};

struct Pipes {
  Fd stdin_read, stdin_write, stdout_read, stdout_write, stderr_read, stderr_write, status_read,
      status_write;
  Fd terminal;  // the command's end of it, in place of the pipes
};

bool MakePipe(Fd* read_end, Fd* write_end) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return false;
  *read_end = Fd(ends[0]);
  *write_end = Fd(ends[1]);
  return true;
}

// The path-free way: what an image has made of /dev/pts does not matter.
bool MakeTerminal(const Command& command, Pipes* pipes) {
  Fd ours(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
  const int unlock = 0;
  if (!ours.valid() || ioctl(ours.get(), TIOCSPTLCK, &unlock) != 0) return false;
  pipes->terminal = Fd(ioctl(ours.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  pipes->stdin_write = Fd(fcntl(ours.get(), F_DUPFD_CLOEXEC, 0));
  if (!pipes->terminal.valid() || !pipes->stdin_write.valid()) return false;
  ioctl(ours.get(), TIOCSWINSZ, &*command.terminal);
  [[maybe_unused]] const int owned = fchown(pipes->terminal.get(), command.identity.uid, -1);
  pipes->stdout_read = std::move(ours);
  return true;
}

bool MakePipes(const Command& command, bool open_stdin, Pipes* pipes) {
  if (!MakePipe(&pipes->status_read, &pipes->status_write)) return false;
  if (command.terminal) return MakeTerminal(command, pipes);
  if (open_stdin) {
    if (!MakePipe(&pipes->stdin_read, &pipes->stdin_write)) return false;
  } else {
    pipes->stdin_read = Fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!pipes->stdin_read.valid()) return false;
  }
  return MakePipe(&pipes->stdout_read, &pipes->stdout_write) &&
         MakePipe(&pipes->stderr_read, &pipes->stderr_write);
}

void SetNonBlocking(const Fd& fd) {
  if (fd.valid()) fcntl(fd.get(), F_SETFL, fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
}

[[noreturn]] void Fail(int status_fd, Stage stage) {
  const FailureRecord record{stage, errno};
  [[maybe_unused]] const ssize_t written = write(status_fd, &record, sizeof(record));
  _exit(125);
}

void BecomeUser(const Command& command, int status_fd) {
  const Identity& who = command.identity;
  const bool own_identity = who.uid == getuid() && who.gid == getgid() && getuid() != 0;
  if (!own_identity &&
      (setgroups(who.groups.size(), who.groups.data()) != 0 ||
       setresgid(who.gid, who.gid, who.gid) != 0 || setresuid(who.uid, who.uid, who.uid) != 0)) {
    Fail(status_fd, Stage::kIdentity);
  }
  if (!command.no_new_privileges) return;
  if (getuid() == 0 || geteuid() == 0) Fail(status_fd, Stage::kRootDenied);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) Fail(status_fd, Stage::kIdentity);
}

// As execvpe(3), with the PATH of the command's own environment.
int ExecAlongPath(const Command& command, char* const* argv, char* const* env) {
  const std::string& program = command.argv[0];
  if (program.find('/') != std::string::npos) {
    execve(program.c_str(), argv, env);
    return errno;
  }
  int result = ENOENT;
  for (size_t begin = 0; begin <= command.path.size();) {
    const size_t end = std::min(command.path.find(':', begin), command.path.size());
    const std::string folder = command.path.substr(begin, end - begin);
    execve(((folder.empty() ? "." : folder) + "/" + program).c_str(), argv, env);
    if (errno != ENOENT && errno != ENOTDIR) result = errno;
    if (errno == E2BIG || errno == ENOMEM || errno == ETXTBSY) break;
    begin = end + 1;
  }
  return result;
}

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& text : strings) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

[[noreturn]] void RunChild(const Command& command, const Pipes& pipes, const Cgroup* cgroup) {
  const int status_fd = pipes.status_write.get();
  if (cgroup != nullptr && !cgroup->Enter().ok()) Fail(status_fd, Stage::kCgroup);
  setsid();
  ResetProcessState();
  const int terminal = pipes.terminal.get();
  if (command.terminal && ioctl(terminal, TIOCSCTTY, 0) != 0) Fail(status_fd, Stage::kStdio);
  if (dup2(command.terminal ? terminal : pipes.stdin_read.get(), 0) < 0 ||
      dup2(command.terminal ? terminal : pipes.stdout_write.get(), 1) < 0 ||
      dup2(command.terminal ? terminal : pipes.stderr_write.get(), 2) < 0) {
    Fail(status_fd, Stage::kStdio);
  }
  BecomeUser(command, status_fd);
  if (chdir(command.cwd.c_str()) != 0) Fail(status_fd, Stage::kCwd);

  const auto argv = Pointers(command.argv);
  const auto env = Pointers(command.env);
  const int failure = ExecAlongPath(command, argv.data(), env.data());
  const std::string line =
      "bunker: can't run " + command.argv[0] + ": " + std::strerror(failure) + "\n";
  [[maybe_unused]] const ssize_t written = write(2, line.data(), line.size());
  _exit(failure == ENOENT || failure == ENOTDIR ? 127 : 126);
}

CommandError FailureOf(const FailureRecord& record) {
  errno = record.error_number;
  switch (record.stage) {
    case Stage::kCwd:
      return {errno == ENOENT || errno == ENOTDIR ? v1::ExecError::CWD_NOT_FOUND
                                                  : v1::ExecError::INVALID,
              ErrnoError("change to the working directory").message};
    case Stage::kRootDenied:
      return {v1::ExecError::ROOT_DENIED, "the command would run as uid 0"};
    case Stage::kIdentity:
      return {v1::ExecError::FAILED, ErrnoError("take the user's identity").message};
    case Stage::kCgroup:
      return {v1::ExecError::FAILED, ErrnoError("enter the command's cgroup").message};
    case Stage::kStdio:
      return {v1::ExecError::FAILED, ErrnoError("set up stdin and output").message};
  }
  return {v1::ExecError::FAILED, "unknown failure"};
}

}  // namespace

void ResetProcessState() {
  for (int signal = 1; signal < NSIG; ++signal) std::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  umask(022);
  // Best effort: PID 1 protects itself from the OOM killer and goes before all others; what it
  // starts must not inherit that.
  [[maybe_unused]] const Error oom =
      WriteSmallFile(AT_FDCWD, "/proc/self/oom_score_adj", 0, 0, "0");
  setpriority(PRIO_PROCESS, 0, 0);
  const rlimit files{kSoftOpenFiles, kHardOpenFiles};
  setrlimit(RLIMIT_NOFILE, &files);
  const rlimit core{0, RLIM_INFINITY};
  setrlimit(RLIMIT_CORE, &core);
}

CommandError Spawn(const Command& command, bool open_stdin, const Cgroup* cgroup, Child* child) {
  Pipes pipes;
  if (!MakePipes(command, open_stdin, &pipes)) {
    return {v1::ExecError::FAILED,
            ErrnoError(command.terminal ? "make a terminal" : "make pipes").message};
  }
  // So that the command can open /dev/stdout and its like by name.
  for (const Fd* end : {&pipes.stdin_write, &pipes.stdout_read, &pipes.stderr_read}) {
    if (!end->valid() || command.terminal) continue;
    [[maybe_unused]] const int owned =
        fchown(end->get(), command.identity.uid, command.identity.gid);
  }
  const pid_t pid = fork();
  if (pid < 0) return {v1::ExecError::FAILED, ErrnoError("fork").message};
  if (pid == 0) RunChild(command, pipes, cgroup);

  child->pid = pid;
  child->stdin_write = std::move(pipes.stdin_write);
  child->stdout_read = std::move(pipes.stdout_read);
  child->stderr_read = std::move(pipes.stderr_read);
  child->status_read = std::move(pipes.status_read);
  for (const Fd* fd :
       {&child->stdin_write, &child->stdout_read, &child->stderr_read, &child->status_read}) {
    SetNonBlocking(*fd);
  }
  return {};
}

bool ReadSpawnStatus(int fd, CommandError* failure) {
  FailureRecord record{};
  const ssize_t got = read(fd, &record, sizeof(record));
  if (got < 0) return errno != EAGAIN && errno != EINTR;
  if (got == sizeof(record)) *failure = FailureOf(record);
  return true;
}

}  // namespace bunker::guest
