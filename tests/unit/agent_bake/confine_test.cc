// What a confined child can still do: nothing but compute, and use the descriptors it was given.
#include "agent/confined/confine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <vector>

namespace bunker::agent::test {
namespace {

constexpr int kNotConfined = 200;
constexpr int kWentThrough = 201;

// Confines a child and lets it make one call. Returns "went through", the error's name, or
// "killed by SIGSYS".
std::string Try(const std::function<long()>& call) {
  const pid_t child = fork();
  if (child == 0) {
    Confinement confinement;
    confinement.uid = 64010;
    confinement.gid = 64010;
    confinement.memory_bytes = 4ull << 30;
    confinement.cpu_seconds = 10;
    confinement.file_bytes = 1 << 20;
    if (!Confine(confinement).ok()) _exit(kNotConfined);
    errno = 0;
    _exit(call() >= 0 ? kWentThrough : errno);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  if (WIFSIGNALED(status)) return std::string("killed by SIG") + sigabbrev_np(WTERMSIG(status));
  if (WEXITSTATUS(status) == kNotConfined) return "not confined";
  if (WEXITSTATUS(status) == kWentThrough) return "went through";
  return strerrorname_np(WEXITSTATUS(status));
}

TEST(Confine, LeavesNothingButTheGivenDescriptors) {
  constexpr char kFile[] = "/tmp/bunker-confine-test";
  const std::vector<std::pair<const char*, std::function<long()>>> refused = {
      {"read a file", [] { return open("/etc/passwd", O_RDONLY); }},
      {"make a file", [&] { return open(kFile, O_WRONLY | O_CREAT, 0600); }},
      {"look at a file", [] { return access("/etc/passwd", R_OK); }},
      {"read a link", [] {
         char target[64];
         return readlink("/proc/self/exe", target, sizeof(target));
       }}};
  for (const auto& [name, call] : refused) EXPECT_EQ(Try(call), "EACCES") << name;
  const std::vector<std::pair<const char*, std::function<long()>>> fatal = {
      {"socket", [] { return socket(AF_INET, SOCK_STREAM, 0); }},
      {"local socket", [] { return socket(AF_UNIX, SOCK_STREAM, 0); }},
      {"execute", [] { return execl("/bin/true", "true", nullptr); }},
      {"fork", [] { return syscall(SYS_fork); }},
      {"ptrace", [] { return ptrace(PTRACE_ATTACH, getppid(), nullptr, nullptr); }},
      {"kill", [] { return kill(getppid(), SIGTERM); }},
      {"mount", [] { return mount("x", "/tmp", "tmpfs", 0, nullptr); }},
      {"make a folder", [&] { return mkdir(kFile, 0700); }},
      {"make a device", [&] { return mknod(kFile, S_IFCHR | 0600, 0x103); }},
      {"make a link", [&] { return symlink("/etc/passwd", kFile); }},
      {"remove", [&] { return unlink(kFile); }},
      {"change a mode", [] { return chmod("/etc/passwd", 0777); }},
      {"become root", [] { return setuid(0); }},
      {"keyrings", [] { return syscall(SYS_keyctl, 0, 0); }},
      {"io_uring", [] { return syscall(SYS_io_uring_setup, 1, nullptr); }},
      {"bpf", [] { return syscall(SYS_bpf, 0, nullptr, 0); }},
      {"code in memory", [] {
         void* const page =
             mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
         return page == MAP_FAILED ? -1L : 0L;
       }}};
  for (const auto& [name, call] : fatal) EXPECT_EQ(Try(call), "killed by SIGSYS") << name;
  EXPECT_EQ(access(kFile, F_OK), -1);
  EXPECT_EQ(Try([] { return static_cast<long>(getpid()); }), "went through");
}

}  // namespace
}  // namespace bunker::agent::test
