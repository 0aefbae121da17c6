#include "common/proc/process.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bunker {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

// A child that waits for ever, or ends at once with `code` where that is ≥ 0.
pid_t Fork(int code = -1, const char* name = nullptr) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  if (name != nullptr) prctl(PR_SET_NAME, name);
  if (code >= 0) _exit(code);
  while (true) pause();
}

ProcessHandle Child(pid_t pid) {
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  absl::StatusOr<ProcessHandle> handle = ProcessHandle::ForChild(std::move(pidfd), pid);
  EXPECT_TRUE(handle.ok()) << handle.status();
  return *std::move(handle);
}

TEST(ProcessTest, ReadsItsOwnIdentityTheSameTwice) {
  absl::StatusOr<ProcessIdentity> first = ReadIdentity(getpid());
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->pid, getpid());
  EXPECT_GT(first->start_time_ticks, 0u);
  EXPECT_EQ(first->boot_id.size(), 36u);
  EXPECT_EQ(*ReadIdentity(getpid()), *first);
}

TEST(ProcessTest, ANameOfParenthesesAndBlanksDoesNotFoolTheParser) {
  ProcessHandle plain = Child(Fork());
  const pid_t pid = Fork(-1, ") S 1 1 (x ");
  ProcessHandle odd = Child(pid);
  // Same parent, started just after: equal or a few ticks more, never a number from the name.
  EXPECT_GE(odd.identity().start_time_ticks, plain.identity().start_time_ticks);
  EXPECT_LT(odd.identity().start_time_ticks, plain.identity().start_time_ticks + 6000);
  EXPECT_EQ(ReadIdentity(pid)->start_time_ticks, odd.identity().start_time_ticks);
  EXPECT_TRUE(plain.Kill(absl::Seconds(5)).ok());
  EXPECT_TRUE(odd.Kill(absl::Seconds(5)).ok());
}

TEST(ProcessTest, AParentLearnsTheExitCode) {
  ProcessHandle child = Child(Fork(7));
  absl::StatusOr<ProcessExit> exit = child.Wait(absl::Seconds(5));
  ASSERT_TRUE(exit.ok()) << exit.status();
  EXPECT_EQ(DescribeExit(*exit), "exit code 7");
  EXPECT_TRUE(child.Wait(absl::ZeroDuration()).ok()) << "the result is kept";
  EXPECT_TRUE(absl::IsNotFound(child.Signal(SIGKILL))) << "its number may be another's by now";
}

TEST(ProcessTest, AParentLearnsTheSignal) {
  ProcessHandle child = Child(Fork());
  absl::StatusOr<ProcessExit> exit = child.Kill(absl::Seconds(5));
  ASSERT_TRUE(exit.ok()) << exit.status();
  EXPECT_THAT(DescribeExit(*exit), HasSubstr("signal 9"));
}

TEST(ProcessTest, WaitGivesUpInTime) {
  ProcessHandle child = Child(Fork());
  EXPECT_TRUE(absl::IsDeadlineExceeded(child.Wait(absl::Milliseconds(20)).status()));
  EXPECT_FALSE(child.HasEnded());
  EXPECT_TRUE(child.Kill(absl::Seconds(5)).ok());
}

TEST(ProcessTest, ThePidfdBecomesReadableAtTheEnd) {
  ProcessHandle child = Child(Fork());
  pollfd watched{.fd = child.fd(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&watched, 1, 0), 0);
  ASSERT_TRUE(child.Signal(SIGKILL).ok());
  EXPECT_EQ(poll(&watched, 1, 5000), 1);
  EXPECT_TRUE(child.Wait(absl::ZeroDuration()).ok());
}

TEST(ProcessTest, OpensAgainTheSameProcessByItsIdentity) {
  ProcessHandle child = Child(Fork());
  absl::StatusOr<ProcessHandle> adopted = ProcessHandle::Open(child.identity());
  ASSERT_TRUE(adopted.ok()) << adopted.status();
  EXPECT_FALSE(adopted->is_child());
  EXPECT_FALSE(adopted->HasEnded());
  ASSERT_TRUE(adopted->Signal(SIGKILL).ok());
  absl::StatusOr<ProcessExit> exit = adopted->Wait(absl::Seconds(5));
  ASSERT_TRUE(exit.ok()) << exit.status();
  EXPECT_FALSE(exit->known);
  EXPECT_TRUE(child.Wait(absl::Seconds(5)).ok());
}

TEST(ProcessTest, RefusesAnotherProcessUnderTheSameNumber) {
  ProcessHandle child = Child(Fork());
  ProcessIdentity other = child.identity();
  other.start_time_ticks -= 1;
  EXPECT_TRUE(absl::IsNotFound(ProcessHandle::Open(other).status()));
  ProcessIdentity other_boot = child.identity();
  other_boot.boot_id = "00000000-0000-0000-0000-000000000000";
  EXPECT_TRUE(absl::IsNotFound(ProcessHandle::Open(other_boot).status()));
  EXPECT_FALSE(child.HasEnded());
  EXPECT_TRUE(child.Kill(absl::Seconds(5)).ok());
}

TEST(ProcessTest, RefusesZombiesAndTheNeverBorn) {
  const pid_t pid = Fork(0);
  ProcessHandle child = Child(pid);
  pollfd watched{.fd = child.fd(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(poll(&watched, 1, 5000), 1);
  EXPECT_TRUE(absl::IsNotFound(ProcessHandle::Open(child.identity()).status())) << "a zombie";
  ASSERT_TRUE(child.Wait(absl::Seconds(5)).ok());
  EXPECT_TRUE(absl::IsNotFound(ProcessHandle::Open(child.identity()).status())) << "reaped";
  for (const pid_t none : {0, -1}) {
    EXPECT_FALSE(ProcessHandle::Open({none, 1, HostBootId()}).ok());
  }
}

// The kernel's own reuse of a number, forced: the stranger lives on.
TEST(ProcessTest, AReusedNumberIsNeverKilled) {
  const pid_t pid = Fork();
  ProcessHandle first = Child(pid);
  const ProcessIdentity gone = first.identity();
  ASSERT_TRUE(first.Kill(absl::Seconds(5)).ok());
  // Until the stranger has the number AND a later tick: the kernel's clock of start times has
  // 10 ms, far less than it takes to go once round the pids, which is skipped here.
  pid_t stranger = 0;
  for (int attempt = 0; attempt < 5000; ++attempt) {
    if (stranger == pid && ReadIdentity(pid)->start_time_ticks != gone.start_time_ticks) break;
    if (stranger > 0) {
      kill(stranger, SIGKILL);
      waitpid(stranger, nullptr, 0);
    }
    UniqueFd last(open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC));
    const std::string text = std::to_string(pid - 1);
    ASSERT_GT(write(last.get(), text.data(), text.size()), 0) << "needs root, to force a pid";
    stranger = Fork();
  }
  ASSERT_EQ(stranger, pid);
  EXPECT_TRUE(absl::IsNotFound(ProcessHandle::Open(gone).status()));
  EXPECT_TRUE(absl::IsNotFound(first.Signal(SIGKILL))) << "the old pidfd doesn't hit it either";
  EXPECT_EQ(waitpid(stranger, nullptr, WNOHANG), 0) << "the stranger is alive";
  kill(stranger, SIGKILL);
  waitpid(stranger, nullptr, 0);
}

TEST(ProcessTest, FindsProcessesByUser) {
  absl::StatusOr<std::vector<ProcessIdentity>> mine = FindProcessesByUid(getuid(), getuid());
  ASSERT_TRUE(mine.ok()) << mine.status();
  EXPECT_THAT(*mine, Contains(*ReadIdentity(getpid())));
  EXPECT_TRUE(FindProcessesByUid(0xfffffff0, 0xfffffff1)->empty());
}

}  // namespace
}  // namespace bunker
