#include "common/proc/subprocess.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <thread>

namespace bunker {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<CommandResult> Shell(const std::string& script, CommandOptions options = {},
                                    CancelToken* cancel = nullptr) {
  return RunCommand({"/bin/sh", "-c", script}, options, cancel);
}

TEST(SubprocessTest, BringsBackOutputErrorsAndExitCode) {
  absl::StatusOr<CommandResult> result = Shell("echo out; echo err >&2; exit 3");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->stdout_data, "out\n");
  EXPECT_EQ(result->stderr_data, "err\n");
  EXPECT_EQ(DescribeExit(result->exit), "exit code 3");
  EXPECT_FALSE(result->ok());
  EXPECT_FALSE(result->truncated);
}

TEST(SubprocessTest, ArgumentsAreNotInterpreted) {
  absl::StatusOr<CommandResult> result =
      RunCommand({"/usr/bin/printf", "%s|", "a b", "$(id)", "'", ""}, {}, nullptr);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->stdout_data, "a b|$(id)|'||");
}

TEST(SubprocessTest, FeedsStdinAndReadsAtTheSameTime) {
  CommandOptions options;
  options.stdin_data.assign(3 << 20, 'x');  // more than the pipes hold: both ways at once
  options.max_output_bytes = 4 << 20;
  absl::StatusOr<CommandResult> result = RunCommand({"/bin/cat"}, options, nullptr);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->stdout_data.size(), options.stdin_data.size());
}

TEST(SubprocessTest, AHelperThatIgnoresItsStdinIsFine) {
  CommandOptions options;
  options.stdin_data.assign(1 << 20, 'x');
  absl::StatusOr<CommandResult> result = Shell("exec <&-; echo done", options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->stdout_data, "done\n");
}

TEST(SubprocessTest, KeepsAtMostWhatIsAskedAndSaysSo) {
  CommandOptions options;
  options.max_output_bytes = 1000;
  absl::StatusOr<CommandResult> result = Shell("head -c 1000000 /dev/zero; echo end >&2", options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->ok());
  EXPECT_EQ(result->stdout_data.size(), 1000u);
  EXPECT_EQ(result->stderr_data, "end\n");
  EXPECT_TRUE(result->truncated);
}

TEST(SubprocessTest, ATimeOutKillsTheWholeGroup) {
  CommandOptions options;
  options.timeout = absl::Milliseconds(300);
  const std::string mark = testing::TempDir() + "/subprocess." + std::to_string(getpid());
  absl::StatusOr<CommandResult> result =
      Shell("sleep 100 & echo $! > " + mark + "; echo sad >&2; wait", options);
  ASSERT_TRUE(absl::IsDeadlineExceeded(result.status())) << result.status();
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("sad"));
  FILE* file = fopen(mark.c_str(), "r");
  ASSERT_NE(file, nullptr);
  int grandchild = 0;
  ASSERT_EQ(fscanf(file, "%d", &grandchild), 1);
  fclose(file);
  unlink(mark.c_str());
  // Killed in the same breath; whoever adopted it has to reap it.
  absl::StatusOr<ProcessIdentity> identity = ReadIdentity(grandchild);
  if (identity.ok()) {
    absl::StatusOr<ProcessHandle> handle = ProcessHandle::Open(*identity);
    if (handle.ok()) {
      EXPECT_TRUE(handle->Wait(absl::Seconds(5)).ok());
    }
  }
}

TEST(SubprocessTest, AnOrphanThatKeepsTheOutputOpenIsNotWaitedFor) {
  absl::StatusOr<CommandResult> result = Shell("sleep 100 & echo started");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->stdout_data, "started\n");
}

TEST(SubprocessTest, CancelEndsIt) {
  CancelToken cancel;
  std::thread canceller([&cancel] { cancel.Cancel(); });
  absl::StatusOr<CommandResult> result = Shell("sleep 100", {}, &cancel);
  canceller.join();
  EXPECT_TRUE(absl::IsCancelled(result.status())) << result.status();
}

TEST(SubprocessTest, InheritsNothing) {
  const int leaked = open("/dev/null", O_RDONLY);  // deliberately without O_CLOEXEC
  setenv("BUNKER_TEST_SECRET", "x", 1);
  signal(SIGPIPE, SIG_IGN);
  CommandOptions options;
  options.env = {{"ONLY", "this"}};
  absl::StatusOr<CommandResult> result =
      Shell("ls /proc/self/fd | tr '\\n' ' '; env | grep -c BUNKER; echo $ONLY; "
            "grep SigIgn /proc/$$/status | cut -f 2 | tail -c 9", options);
  close(leaked);
  signal(SIGPIPE, SIG_DFL);
  unsetenv("BUNKER_TEST_SECRET");
  ASSERT_TRUE(result.ok()) << result.status();
  // 3 is ls's own view of the folder.
  // SIGPIPE is bit 12; signals 32 and 33 are the C library's own.
  EXPECT_EQ(result->stdout_data, "0 1 2 3 0\nthis\n80000000\n");
}

TEST(SubprocessTest, RefusesWhatItCannotStart) {
  EXPECT_TRUE(absl::IsNotFound(RunCommand({"/no/such/program"}, {}, nullptr).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(RunCommand({"sh"}, {}, nullptr).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(RunCommand({}, {}, nullptr).status()));
}

}  // namespace
}  // namespace bunker
