// The guest's table of processes, asked over a real channel; and guests that lie about theirs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/exec/exec_stream.h"
#include "agent/exec/guest_channel.h"
#include "common/base/reason.h"
#include "tests/unit/agent_exec/real_server.h"

namespace bunker::agent {
namespace {

using guest::v1::ProcessAnswer;
using guest::v1::ProcessCall;

class ProcessTest : public testing::Test {
 protected:
  ProcessTest() : channel_({"test", [this] { return server_.Connect(); }}) {
    EXPECT_TRUE(channel_.WaitReady(absl::Seconds(10)).ok());
  }

  // What the guest answers, or the error.
  absl::StatusOr<ProcessAnswer> Ask(const ProcessCall& call) {
    auto promise = std::make_shared<std::promise<absl::StatusOr<ProcessAnswer>>>();
    ExecCallbacks callbacks;
    callbacks.on_answer = [promise](const ProcessAnswer& answer) { promise->set_value(answer); };
    callbacks.on_error = [promise](const absl::Status& why) { promise->set_value(why); };
    auto handle = channel_.CallProcess(call, std::move(callbacks));
    if (!handle.ok()) return handle.status();
    return promise->get_future().get();
  }
  ProcessCall StartOf(const std::string& line) {
    ProcessCall call;
    guest::v1::ExecStart& start = *call.mutable_start();
    start.set_shell(line);
    start.set_user(std::to_string(getuid()) + ":" + std::to_string(getgid()));
    start.set_allow_root(true);
    start.set_open_stdin(true);
    call.set_allow_root(true);
    return call;
  }
  uint32_t Start(const std::string& line) {
    const auto answer = Ask(StartOf(line));
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.ok() && answer->rows_size() == 1 ? answer->rows(0).pid() : 0;
  }
  ProcessCall About(uint32_t pid, std::function<void(ProcessCall&, uint32_t)> what) {
    ProcessCall call;
    call.set_allow_root(true);
    what(call, pid);
    return call;
  }

  struct Read {
    std::string out, err;
    uint64_t gap = 0;
    absl::StatusOr<ExecResult> end = absl::UnknownError("not ended");
    uint64_t log_end = 0;
  };
  // All that it writes from there on, to its end. No pid: main.
  Read ReadAll(std::optional<uint32_t> pid, uint64_t offset, bool follow = true) {
    auto read = std::make_shared<Read>();
    auto ended = std::make_shared<std::promise<void>>();
    auto handle = std::make_shared<std::unique_ptr<ExecHandle>>();
    auto opened = std::make_shared<std::promise<void>>();
    const std::shared_future<void> is_open = opened->get_future().share();
    ExecCallbacks callbacks;
    callbacks.on_output = [=](bool is_stderr, std::string_view data) {
      (is_stderr ? read->err : read->out).append(data);
      is_open.wait();
      (*handle)->AckOutput(data.size());
    };
    callbacks.on_gap = [=](uint64_t bytes) { read->gap += bytes; };
    callbacks.on_exit = [=](const ExecResult& result) {
      read->end = result;
      ended->set_value();
    };
    callbacks.on_error = [=](const absl::Status& why) {
      read->end = why;
      ended->set_value();
    };
    callbacks.on_log_end = [=](uint64_t next_offset) {
      read->log_end = next_offset;
      ended->set_value();
    };
    auto made = pid ? channel_.ReadProcess(*pid, offset, std::move(callbacks))
                    : channel_.ReadMain(offset, follow, std::move(callbacks));
    EXPECT_TRUE(made.ok()) << made.status();
    if (!made.ok()) return *read;
    *handle = *std::move(made);
    opened->set_value();
    ended->get_future().wait();
    return *read;
  }

  RealServer server_;
  GuestChannel channel_;
};

// Of the main program, which is configured once.
class MainTest : public ProcessTest {
 protected:
  void Configure(std::vector<std::string> argv, guest::v1::MainProgram::Restart restart,
                 const std::string& cwd = "/") {
    guest::v1::GuestConfig config;
    config.set_default_cwd(cwd);
    config.set_default_user(std::to_string(getuid()) + ":" + std::to_string(getgid()));
    guest::v1::MainProgram& main = *config.mutable_main();
    for (std::string& word : argv) *main.add_argv() = std::move(word);
    main.set_restart(restart);
    main.set_allow_root(true);
    ASSERT_TRUE(channel_.Configure(config, absl::Seconds(10)).ok());
  }
  guest::v1::MainRow AwaitOther(uint64_t serial) {
    ProcessCall call;
    call.mutable_main_wait()->set_seen_serial(serial);
    const auto answer = Ask(call);
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.ok() ? answer->main() : guest::v1::MainRow();
  }
  guest::v1::MainRow Await(const std::function<bool(const guest::v1::MainRow&)>& done) {
    guest::v1::MainRow row = AwaitOther(0);
    while (!done(row)) row = AwaitOther(row.serial());
    return row;
  }
  Read ReadMain(uint64_t offset, bool follow) { return ReadAll(std::nullopt, offset, follow); }
};

TEST_F(MainTest, RunsOnceAndItsLogStays) {
  Configure({"/bin/sh", "-c", "echo out; echo err >&2; exit 3"}, guest::v1::MainProgram::NEVER);
  const auto row = Await([](const auto& at) { return at.state() == guest::v1::MainRow::EXITED; });
  EXPECT_TRUE(row.ended());
  EXPECT_EQ(row.exit_code(), 3);
  EXPECT_EQ(row.restarts(), 0u);
  // A second configuration, as by another agent, starts nothing.
  Configure({"/bin/sh", "-c", "echo again"}, guest::v1::MainProgram::ALWAYS);
  const Read all = ReadMain(0, true);
  EXPECT_EQ(all.out + "|" + all.err, "out\n|err\n");
  ASSERT_TRUE(all.end.ok()) << all.end.status();
  EXPECT_EQ(all.end->exit_code, 3);
  const Read rest = ReadMain(4, false);
  EXPECT_EQ(rest.out + rest.err, "err\n");
  EXPECT_EQ(rest.log_end, 8u);
}

TEST_F(MainTest, IsStartedAgainAsItsPolicySays) {
  const std::string mark = testing::TempDir() + "/main." + std::to_string(getpid());
  unlink(mark.c_str());
  Configure({"/bin/sh", "-c",
             "echo run; if [ -e " + mark + " ]; then exit 0; fi; : > " + mark + "; kill -9 $$"},
            guest::v1::MainProgram::ON_FAILURE);
  const auto row = Await([](const auto& at) { return at.state() == guest::v1::MainRow::EXITED; });
  EXPECT_EQ(row.restarts(), 1u);
  EXPECT_EQ(row.exit_code(), 0);
  EXPECT_EQ(row.signal(), "");
  EXPECT_EQ(ReadMain(0, true).out, "run\nrun\n") << "one log over both runs";
  unlink(mark.c_str());
}

TEST_F(MainTest, SaysWhyItCannotBeRun) {
  Configure({"/bin/true"}, guest::v1::MainProgram::ALWAYS, "/no/such/folder");
  const auto row = Await([](const auto& at) { return at.state() == guest::v1::MainRow::FAILED; });
  EXPECT_THAT(row.message(), testing::HasSubstr("working directory"));
  EXPECT_FALSE(row.ended());
  EXPECT_EQ(ReadMain(0, true).end->exit_code, 127);
}

TEST_F(MainTest, AMissingProgramEndsAsInAShell) {
  Configure({"/no/such/program"}, guest::v1::MainProgram::NEVER);
  const auto row = Await([](const auto& at) { return at.state() == guest::v1::MainRow::EXITED; });
  EXPECT_EQ(row.exit_code(), 127);
  EXPECT_THAT(ReadMain(0, true).err, testing::HasSubstr("/no/such/program"));
}

TEST_F(MainTest, AnImageWithoutACommandFails) {
  Configure({}, guest::v1::MainProgram::ALWAYS);
  const auto row = Await([](const auto& at) { return at.state() == guest::v1::MainRow::FAILED; });
  EXPECT_THAT(row.message(), testing::HasSubstr("main.args"));
}

TEST_F(MainTest, WithoutOneThereIsNothingToAskFor) {
  ProcessCall call;
  call.mutable_main_wait();
  EXPECT_EQ(ReasonOf(Ask(call).status()), "NOT_FOUND");
  EXPECT_EQ(ReasonOf(ReadMain(0, false).end.status()), "NOT_FOUND");
}

TEST_F(MainTest, AnOffsetThatIsNotThereYetIsRefused) {
  Configure({"/bin/sh", "-c", "echo out"}, guest::v1::MainProgram::NEVER);
  Await([](const auto& at) { return at.state() == guest::v1::MainRow::EXITED; });
  EXPECT_EQ(ReasonOf(ReadMain(5, false).end.status()), "VALIDATION_ERROR");
}

TEST_F(ProcessTest, IsStartedReadAndRemembered) {
  const uint32_t pid = Start("echo out; echo err >&2; exit 3");
  ASSERT_NE(pid, 0u);
  for (int i = 0; i < 2; ++i) {  // by more than one reader
    const Read read = ReadAll(pid, 0);
    EXPECT_EQ(read.out + "|" + read.err, "out\n|err\n");
    ASSERT_TRUE(read.end.ok()) << read.end.status();
    EXPECT_EQ(read.end->exit_code, 3);
  }
  EXPECT_EQ(ReadAll(pid, 6).err, "r\n");
  const auto row = Ask(About(pid, [](ProcessCall& call, uint32_t of) { call.set_get(of); }));
  ASSERT_TRUE(row.ok());
  EXPECT_TRUE(row->rows(0).ended());
  EXPECT_EQ(row->rows(0).shell(), "echo out; echo err >&2; exit 3");
  ProcessCall list;
  list.set_list(true);
  EXPECT_EQ(Ask(list)->rows_size(), 1);
}

TEST_F(ProcessTest, WhatTheRingLostIsTold) {
  const uint32_t pid = Start("head -c 1000000 /dev/zero");
  const Read whole = ReadAll(pid, 0);
  EXPECT_EQ(whole.gap + whole.out.size(), 1'000'000u) << "told, whatever was kept";
  const Read late = ReadAll(pid, 0);
  EXPECT_EQ(late.out.size(), 256u * 1024);
  EXPECT_EQ(late.gap, 1'000'000u - 256 * 1024);
}

TEST_F(ProcessTest, TakesStdinAndSignals) {
  const uint32_t pid = Start("cat; exit 4");
  const auto written = Ask(About(pid, [](ProcessCall& call, uint32_t of) {
    call.mutable_write()->set_pid(of);
    call.mutable_write()->set_data(std::string(100'000, 'x'));
  }));
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_EQ(written->taken_bytes(), 100'000u);
  const auto closed =
      Ask(About(pid, [](ProcessCall& call, uint32_t of) { call.set_close_stdin(of); }));
  ASSERT_TRUE(closed.ok()) << closed.status();
  const Read read = ReadAll(pid, 0);
  EXPECT_EQ(read.out.size(), 100'000u);
  EXPECT_EQ(read.end->exit_code, 4);

  const uint32_t sleeper = Start("sleep 100");
  ASSERT_TRUE(Ask(About(sleeper, [](ProcessCall& call, uint32_t of) {
                call.mutable_signal()->set_pid(of);
                call.mutable_signal()->set_signal(15);
              })).ok());
  EXPECT_EQ(ReadAll(sleeper, 0).end->signal, "SIGTERM");
  const auto gone = Ask(About(sleeper, [](ProcessCall& call, uint32_t of) {
    call.mutable_signal()->set_pid(of);
    call.mutable_signal()->set_signal(15);
  }));
  EXPECT_EQ(ReasonOf(gone.status()), "NOT_FOUND");
}

TEST_F(ProcessTest, RefusesWhatIsNotThereOrNotAllowed) {
  EXPECT_EQ(ReasonOf(Ask(About(1 << 30, [](ProcessCall& call, uint32_t of) {
                       call.set_get(of);
                     })).status()),
            "NOT_FOUND");
  const uint32_t pid = Start("sleep 100");
  ProcessCall weak;
  weak.mutable_signal()->set_pid(pid);
  weak.mutable_signal()->set_signal(9);
  EXPECT_EQ(ReasonOf(Ask(weak).status()), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(ReasonOf(ReadAll(pid, 5).end.status()), "VALIDATION_ERROR");
  ProcessCall nowhere = StartOf("true");
  nowhere.mutable_start()->set_cwd("/no/such");
  EXPECT_EQ(ReasonOf(Ask(nowhere).status()), "PATH_NOT_FOUND");
  weak.set_allow_root(true);
  EXPECT_TRUE(Ask(weak).ok());
  EXPECT_EQ(ReadAll(pid, 0).end->signal, "SIGKILL");
}

TEST_F(ProcessTest, ThereAreSoManyAtOnceAndSoManyRows) {
  std::vector<uint32_t> pids;
  for (int i = 0; i < 32; ++i) pids.push_back(Start("sleep 100"));
  EXPECT_EQ(ReasonOf(Ask(StartOf("true")).status()), "RATE_LIMITED");
  for (const uint32_t pid : pids) {
    ProcessCall kill;
    kill.set_allow_root(true);
    kill.mutable_signal()->set_pid(pid);
    kill.mutable_signal()->set_signal(9);
    ASSERT_TRUE(Ask(kill).ok());
    ReadAll(pid, 0);
  }
  for (int i = 0; i < 50; ++i) ReadAll(Start("true"), 0);
  ProcessCall list;
  list.set_list(true);
  EXPECT_LE(Ask(list)->rows_size(), 64);
  EXPECT_EQ(ReasonOf(ReadAll(pids[0], 0).end.status()), "NOT_FOUND") << "the oldest went first";
}

TEST_F(ProcessTest, ATerminalIsOne) {
  ExecSpec spec;
  spec.shell = "stty size; tty >/dev/null && echo yes; read line; echo \"<$line>\"; stty size";
  spec.user = std::to_string(getuid()) + ":" + std::to_string(getgid());
  spec.allow_root = true;
  spec.terminal = TerminalSize{93, 31};
  spec.tell_start = true;
  auto text = std::make_shared<std::string>();
  auto started = std::make_shared<std::promise<void>>();
  auto ended = std::make_shared<std::promise<ExecResult>>();
  ExecCallbacks callbacks;
  callbacks.on_started = [=](uint32_t) { started->set_value(); };
  callbacks.on_output = [=](bool is_stderr, std::string_view data) {
    EXPECT_FALSE(is_stderr);
    text->append(data);
  };
  callbacks.on_exit = [=](const ExecResult& result) { ended->set_value(result); };
  callbacks.on_error = [](const absl::Status& why) { ADD_FAILURE() << why; };
  auto handle = channel_.StartExec(spec, std::move(callbacks));
  ASSERT_TRUE(handle.ok()) << handle.status();
  started->get_future().wait();
  (*handle)->Resize({120, 40});
  ASSERT_TRUE((*handle)->WriteStdin("typed\n", absl::Seconds(5)).ok());
  EXPECT_EQ(ended->get_future().get().exit_code, 0);
  EXPECT_THAT(*text, testing::HasSubstr("yes\r\n"));
  EXPECT_THAT(*text, testing::HasSubstr("<typed>\r\n"));
  EXPECT_THAT(*text, testing::HasSubstr("40 120\r\n"));
}

TEST(HostileProcess, GapsAreMadePlausible) {
  ExecSpec spec;
  spec.max_output_bytes = UINT64_MAX;
  ExecStream stream(spec, std::chrono::steady_clock::now());
  EXPECT_FALSE(stream.OnGap(5).ok()) << "a command has none";
  stream.ReadsProcess();
  EXPECT_FALSE(stream.OnGap(0).ok());
  EXPECT_TRUE(stream.OnGap(5).ok());
  EXPECT_FALSE(stream.OnGap(UINT64_MAX).ok());
  EXPECT_TRUE(stream.OnGap(uint64_t{1} << 55).ok());
  EXPECT_FALSE(stream.OnGap(uint64_t{1} << 56).ok()) << "offsets don't run over";
}

}  // namespace
}  // namespace bunker::agent
