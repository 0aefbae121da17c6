#include "agent/confined/confined_command.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "agent/confined/confine.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {
namespace {

// The words before the program: uid, memory, CPU seconds, network, folder.
constexpr int kFixedWords = 5;
constexpr int kExitNotConfined = 125;
constexpr int kExitNotStarted = 126;
constexpr int kLowestPriority = 19;
constexpr rlim_t kMaxFileBytes = rlim_t{1} << 30;
constexpr rlim_t kMaxOpenFiles = 1024;

absl::Status Limit(__rlimit_resource resource, rlim_t value) {
  const rlimit limit{value, value};
  if (setrlimit(resource, &limit) == 0) return absl::OkStatus();
  return ErrnoError(errno, "confining a command: setrlimit");
}

absl::Status AllowWriting(int rules, const char* path, uint64_t rights) {
  const UniqueFd place(open(path, O_PATH | O_CLOEXEC));
  if (!place) return ErrnoError(errno, "confining a command: its folder");
  landlock_path_beneath_attr below = {};
  below.allowed_access = rights;
  below.parent_fd = place.get();
  if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &below, 0) == 0)
    return absl::OkStatus();
  return ErrnoError(errno, "confining a command: Landlock");
}

absl::Status ForbidWriting(const char* writable_dir) {
  const long version =
      syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (version < 0) return absl::OkStatus();  // a kernel without it: the user remains
  landlock_ruleset_attr rights = {};
  rights.handled_access_fs = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
                             LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
                             LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
                             LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
                             LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM;
  const UniqueFd rules(
      static_cast<int>(syscall(SYS_landlock_create_ruleset, &rights, sizeof(rights), 0)));
  if (!rules) return ErrnoError(errno, "confining a command: Landlock");
  RETURN_IF_ERROR(AllowWriting(rules.get(), writable_dir, rights.handled_access_fs));
  RETURN_IF_ERROR(AllowWriting(rules.get(), "/dev/null", LANDLOCK_ACCESS_FS_WRITE_FILE));
  if (syscall(SYS_landlock_restrict_self, rules.get(), 0) == 0) return absl::OkStatus();
  return ErrnoError(errno, "confining a command: Landlock");
}

absl::Status ConfineSelf(char** words) {
  const auto uid = static_cast<uid_t>(std::strtoul(words[0], nullptr, 10));
  if (chdir(words[4]) != 0) return ErrnoError(errno, "confining a command: its folder");
  RETURN_IF_ERROR(DropPrivileges(uid, uid));
  RETURN_IF_ERROR(ForbidWriting(words[4]));
  RETURN_IF_ERROR(Limit(RLIMIT_AS, std::strtoull(words[1], nullptr, 10)));
  RETURN_IF_ERROR(Limit(RLIMIT_CPU, std::strtoul(words[2], nullptr, 10)));
  RETURN_IF_ERROR(Limit(RLIMIT_FSIZE, kMaxFileBytes));
  RETURN_IF_ERROR(Limit(RLIMIT_NOFILE, kMaxOpenFiles));
  RETURN_IF_ERROR(Limit(RLIMIT_CORE, 0));
  (void)setpriority(PRIO_PROCESS, 0, kLowestPriority);
  return absl::OkStatus();
}

[[noreturn]] void BecomeProgram(char** words) {
  const absl::Status confined = ConfineSelf(words);
  if (!confined.ok()) {
    std::fprintf(stderr, "%s\n", std::string(confined.message()).c_str());
    _exit(kExitNotConfined);
  }
  execve(words[kFixedWords], words + kFixedWords, environ);
  std::perror(words[kFixedWords]);
  _exit(kExitNotStarted);
}

}  // namespace

// This process keeps its group, which the agent kills; the program is the first of a PID
// namespace, and with it the kernel ends all that it started, wherever that went.
int ConfinedCommandMain(int argc, char** argv) {
  if (argc < 2 + kFixedWords + 1) return kExitNotConfined;
  char** words = argv + 2;
  const bool network = words[3][0] == '1';
  if (unshare(CLONE_NEWPID | CLONE_NEWIPC | (network ? 0 : CLONE_NEWNET)) != 0) {
    std::perror("confining a command: namespaces of its own (the agent must be root)");
    return kExitNotConfined;
  }
  const pid_t program = fork();
  if (program < 0) return kExitNotConfined;
  if (program == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    BecomeProgram(words);
  }
  int status = 0;
  while (waitpid(program, &status, 0) < 0) {
    if (errno != EINTR) return kExitNotConfined;
  }
  if (WIFSIGNALED(status)) {
    std::fprintf(stderr, "killed by signal %d\n", WTERMSIG(status));
    return 128 + WTERMSIG(status);
  }
  return WEXITSTATUS(status);
}

absl::StatusOr<CommandResult> RunConfined(const ConfinedCommand& command, CancelToken& cancel) {
  if (command.uid == 0 || command.argv.empty() || command.argv[0].empty() ||
      command.argv[0][0] != '/' || command.writable_dir.empty()) {
    return absl::InvalidArgumentError("a confined command needs a user, a path and a folder");
  }
  std::vector<std::string> argv = {"/proc/self/exe",
                                   kConfinedCommandArgument,
                                   std::to_string(command.uid),
                                   std::to_string(command.memory_bytes),
                                   std::to_string(command.cpu_seconds),
                                   command.network ? "1" : "0",
                                   command.writable_dir};
  argv.insert(argv.end(), command.argv.begin(), command.argv.end());
  CommandOptions options;
  options.timeout = command.timeout;
  options.max_output_bytes = command.max_output_bytes;
  options.env = command.env;
  return RunCommand(argv, options, &cancel);
}

}  // namespace bunker::agent
