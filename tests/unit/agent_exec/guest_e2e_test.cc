// Commands in a real guest: boots one microVM and drives it through GuestChannel. Needs QEMU and
// the files that tests/support/guest_images makes; see there for how it is run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "common/base/mutex.h"
#include "common/base/reason.h"
#include "common/base/sha256.h"
#include "tests/unit/agent_exec/booted_guest.h"

namespace bunker::agent {
namespace {

using testing::HasSubstr;

std::string Need(const char* variable) {
  const char* value = std::getenv(variable);
  if (value == nullptr) {
    fprintf(stderr, "%s is not set: run this by tests/support/guest_images\n", variable);
    std::abort();
  }
  return value;
}

void Report(const std::string& what, double value, const char* unit) {
  printf("FIGURE %s: %.3f %s\n", what.c_str(), value, unit);
}

class GuestTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    char folder[] = "/tmp/bunker-guest-XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    folder_ = new std::string(folder);
    const absl::Time started = absl::Now();
    guest_ = new BootedGuest(
        {Need("BUNKER_TEST_KERNEL"), Need("BUNKER_TEST_INITRD"), Need("BUNKER_TEST_BASE"), folder});
    channel_ = new GuestChannel(guest_->ChannelOptions());
    const absl::Status ready = channel_->WaitReady(absl::Seconds(60));
    ASSERT_TRUE(ready.ok()) << ready;
    Report("boot to hello", absl::ToDoubleSeconds(absl::Now() - started), "s");
    Report("of that in the guest", absl::ToDoubleSeconds(channel_->facts().uptime), "s");
    guest::v1::GuestConfig config;
    config.set_hostname("testguest");
    (*config.mutable_default_env())["FROM_IMAGE"] = "yes";
    (*config.mutable_default_env())["LANG"] = "C.UTF-8";
    config.set_default_cwd("/usr");
    config.set_realtime_ns(static_cast<uint64_t>(absl::ToUnixNanos(absl::Now())));
    config.set_entropy(std::string(64, 'e'));
    const absl::Status configured = channel_->Configure(config, absl::Seconds(10));
    ASSERT_TRUE(configured.ok()) << configured;
  }
  static void TearDownTestSuite() {
    delete channel_;
    delete guest_;
    if (folder_ != nullptr) {
      EXPECT_EQ(std::system(("rm -rf '" + *folder_ + "'").c_str()), 0);
    }
    delete folder_;
  }

  static RunOutcome Argv(std::vector<std::string> argv) {
    ExecSpec spec;
    spec.argv = std::move(argv);
    spec.default_to_1000 = true;
    spec.timeout_ms = 60'000;
    return RunInGuest(*channel_, spec);
  }
  static ExecSpec ShellSpec(std::string line) {
    ExecSpec spec;
    spec.shell = std::move(line);
    spec.allow_root = true;
    spec.timeout_ms = 60'000;
    return spec;
  }
  static RunOutcome Shell(std::string line) {
    return RunInGuest(*channel_, ShellSpec(std::move(line)));
  }

  static std::string* folder_;
  static BootedGuest* guest_;
  static GuestChannel* channel_;
};
std::string* GuestTest::folder_ = nullptr;
BootedGuest* GuestTest::guest_ = nullptr;
GuestChannel* GuestTest::channel_ = nullptr;

TEST_F(GuestTest, Ping) {
  std::vector<double> micros;
  for (int i = 0; i < 200; ++i) {
    const auto took = channel_->Ping(absl::Seconds(5));
    ASSERT_TRUE(took.ok()) << took.status();
    micros.push_back(absl::ToDoubleMicroseconds(*took));
  }
  std::sort(micros.begin(), micros.end());
  Report("ping median", micros[100], "us");
}

TEST_F(GuestTest, ArgvIsNotReadByAnyShell) {
  const RunOutcome run = Argv({"printf", "<%s>", "a b", "c\"d", "e'f", "", "$HOME", "*"});
  ASSERT_TRUE(run.status.ok()) << run.status;
  EXPECT_EQ(run.out, "<a b><c\"d><e'f><><$HOME><*>");
  EXPECT_EQ(run.result.exit_code, 0);
  EXPECT_EQ(run.result.signal, "");
}

TEST_F(GuestTest, ShellStringCwdEnvAndStderr) {
  ExecSpec spec = ShellSpec("pwd; echo $A-$FROM_IMAGE-$HOME; hostname; echo oops >&2; exit 7");
  spec.cwd = "/tmp";
  spec.env = {{"A", "b c"}};
  const RunOutcome run = RunInGuest(*channel_, spec);
  ASSERT_TRUE(run.status.ok()) << run.status;
  EXPECT_EQ(run.out, "/tmp\nb c-yes-/root\ntestguest\n");
  EXPECT_EQ(run.err, "oops\n");
  EXPECT_EQ(run.result.exit_code, 7);
  EXPECT_EQ(run.result.stdout_bytes, run.out.size());
  EXPECT_EQ(run.result.stderr_bytes, 5u);
  EXPECT_EQ(Shell("pwd").out, "/usr\n") << "the configured default";
}

TEST_F(GuestTest, WhatCannotRunSaysWhy) {
  EXPECT_EQ(Argv({"/no/such/program"}).result.exit_code, 127);
  EXPECT_THAT(Argv({"nosuch"}).err, HasSubstr("can't run nosuch: No such file"));
  EXPECT_EQ(Argv({"/etc/passwd"}).result.exit_code, 126);
  ExecSpec spec = ShellSpec("true");
  spec.cwd = "/no/such/folder";
  EXPECT_EQ(ReasonOf(RunInGuest(*channel_, spec).status), "PATH_NOT_FOUND");
  spec = ShellSpec("true");
  spec.user = "nosuchuser";
  EXPECT_EQ(ReasonOf(RunInGuest(*channel_, spec).status), "VALIDATION_ERROR");
}

TEST_F(GuestTest, RootIsRefusedInEverySpelling) {
  for (const char* user : {"0", "00", "root", "0:0", "root:root", "0:1000", "toor", "000000000"}) {
    ExecSpec spec = ShellSpec("id");
    spec.allow_root = false;
    spec.user = user;
    const RunOutcome run = RunInGuest(*channel_, spec);
    EXPECT_EQ(ReasonOf(run.status), "AUTHZ_PERMISSION_DENIED") << user << ": " << run.status;
  }
  for (const char* user : {"-0", "+0", " 0", "0x0", "4294967296", "4294967295", "0:", ":0", ":"}) {
    ExecSpec spec = ShellSpec("id");
    spec.allow_root = false;
    spec.user = user;
    EXPECT_EQ(ReasonOf(RunInGuest(*channel_, spec).status), "VALIDATION_ERROR") << user;
  }
  ExecSpec spec = ShellSpec("id -u");
  spec.allow_root = false;  // the default user is uid 0
  EXPECT_EQ(ReasonOf(RunInGuest(*channel_, spec).status), "AUTHZ_PERMISSION_DENIED");
}

TEST_F(GuestTest, UsersAndGroups) {
  const RunOutcome run = Argv({"sh", "-c",
                               "id -u; id -g; echo $HOME; touch $HOME/x && echo ok;"
                               "grep NoNewPrivs /proc/self/status"});
  EXPECT_EQ(run.out, "1000\n1000\n/home/bunker\nok\nNoNewPrivs:\t1\n") << run.err;
  ExecSpec spec = ShellSpec("id -u; id -g; id -G; echo x > /dev/stdout");
  spec.user = "app";
  EXPECT_EQ(RunInGuest(*channel_, spec).out, "2000\n2000\n2000 3000\nx\n");
  spec.user = "app:extra";
  EXPECT_EQ(RunInGuest(*channel_, spec).out, "2000\n3000\n3000\nx\n");
  spec.user = "54321";
  EXPECT_EQ(RunInGuest(*channel_, spec).out, "54321\n0\n0\nx\n");
}

TEST_F(GuestTest, StdinOfOneMebibyteComesBackUnchanged) {
  std::string data(1 << 20, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>((i * 2654435761u) >> 13);
  ExecSpec spec = ShellSpec("cat");
  spec.max_output_bytes = 4 << 20;
  const RunOutcome run = RunInGuest(*channel_, spec, data);
  ASSERT_TRUE(run.status.ok()) << run.status;
  EXPECT_EQ(Sha256Hex(run.out), Sha256Hex(data));
  // A command that does not read it all still ends, and so does the writer.
  EXPECT_EQ(RunInGuest(*channel_, ShellSpec("head -c 3"), data).result.exit_code, 0);
  EXPECT_EQ(RunInGuest(*channel_, ShellSpec("exec <&-; echo gone"), data).out, "gone\n");
}

TEST_F(GuestTest, StdinThroughputAndOutputThroughput) {
  const std::string data(64 << 20, 'x');
  absl::Time started = absl::Now();
  const RunOutcome in = RunInGuest(*channel_, ShellSpec("cat >/dev/null"), data);
  ASSERT_TRUE(in.status.ok()) << in.status;
  Report("stdin", 67.1 / absl::ToDoubleSeconds(absl::Now() - started), "MB/s");
  ExecSpec spec = ShellSpec("dd if=/dev/zero bs=64k count=1600 2>/dev/null");
  spec.max_output_bytes = 1 << 30;
  started = absl::Now();
  const RunOutcome out = RunInGuest(*channel_, spec);
  ASSERT_TRUE(out.status.ok()) << out.status;
  EXPECT_EQ(out.out.size(), 104857600u);
  Report("output forwarded", 104.9 / absl::ToDoubleSeconds(absl::Now() - started), "MB/s");
}

// A file's way from here to the guest's memory and back, as one operation.
struct FileRun {
  Mutex mutex;
  CondVar changed;
  bool room = false, ended = false, has_reader = false;
  absl::Status status;
  size_t received = 0;
  FileHandle* reader = nullptr;

  FileCallbacks Callbacks() {
    FileCallbacks callbacks;
    callbacks.on_room = [this] { Set(&room); };
    callbacks.on_end = [this](const guest::v1::FileEnd&) { Set(&ended); };
    callbacks.on_error = [this](const absl::Status& why) {
      status = why;
      Set(&ended);
    };
    callbacks.on_data = [this](std::string_view data) {
      Await(&has_reader);  // data may come before the caller has its handle
      received += data.size();
      reader->AckData(data.size());
    };
    return callbacks;
  }
  void Set(bool* flag) {
    MutexLock lock(mutex);
    *flag = true;
    changed.notify_all();
  }
  void Await(bool* flag) {
    MutexLock lock(mutex);
    changed.wait(lock.native(), [flag] { return *flag; });
  }
  void AwaitRoom() {
    MutexLock lock(mutex);
    changed.wait(lock.native(), [this] { return std::exchange(room, false); });
  }
};

TEST_F(GuestTest, FilesThroughput) {
  constexpr size_t kBytes = 48 << 20;
  std::string data(1 << 20, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 + 1);
  guest::v1::FileStart start;
  start.set_op(guest::v1::FileStart::WRITE);
  start.set_path("/dev/shm/file");
  start.set_allow_root(true);
  absl::Time started = absl::Now();
  {
    FileRun run;
    auto handle = channel_->StartFile(start, run.Callbacks());
    ASSERT_TRUE(handle.ok()) << handle.status();
    for (size_t sent = 0; sent < kBytes;) {
      const size_t at = sent % data.size();
      const size_t taken = (*handle)->TryWrite(std::string_view(data).substr(at));
      sent += taken;
      if (at + taken < data.size()) run.AwaitRoom();
    }
    (*handle)->Commit(kBytes);
    run.Await(&run.ended);
    ASSERT_TRUE(run.status.ok()) << run.status;
  }
  Report("file put", kBytes / 1e6 / absl::ToDoubleSeconds(absl::Now() - started), "MB/s");
  start.set_op(guest::v1::FileStart::READ);
  started = absl::Now();
  FileRun run;
  auto handle = channel_->StartFile(start, run.Callbacks());
  ASSERT_TRUE(handle.ok()) << handle.status();
  run.reader = handle->get();
  run.Set(&run.has_reader);
  run.Await(&run.ended);
  ASSERT_TRUE(run.status.ok()) << run.status;
  EXPECT_EQ(run.received, kBytes);
  Report("file get", kBytes / 1e6 / absl::ToDoubleSeconds(absl::Now() - started), "MB/s");
  EXPECT_EQ(Shell("rm /dev/shm/file").result.exit_code, 0);
}

TEST_F(GuestTest, HundredMegabytesAreDrainedAndCounted) {
  ExecSpec spec = ShellSpec("dd if=/dev/zero bs=64k count=1600; echo end >&2");
  const absl::Time started = absl::Now();
  const RunOutcome run = RunInGuest(*channel_, spec);
  ASSERT_TRUE(run.status.ok()) << run.status;
  Report("output drained", 104.9 / absl::ToDoubleSeconds(absl::Now() - started), "MB/s");
  EXPECT_EQ(run.out.size(), 1u << 20);
  EXPECT_EQ(run.result.stdout_bytes, 104857600u);
  EXPECT_THAT(run.err, HasSubstr("end\n"));
}

TEST_F(GuestTest, ASignalHasItsName) {
  const RunOutcome run = Shell("kill -SEGV $$");
  EXPECT_EQ(run.result.signal, "SIGSEGV");
  EXPECT_EQ(run.result.exit_code, 139);
  EXPECT_EQ(Shell("trap '' TERM; kill -TERM $$; echo still").out, "still\n");
}

TEST_F(GuestTest, ATimeOutKillsTheWholeTree) {
  ExecSpec spec = ShellSpec(
      "echo before; setsid sh -c 'setsid sleep 4242 >/dev/null 2>&1 & setsid sleep 4242 & exit' & "
      "sleep 0.3; pidof sleep >&2; exec sleep 4242");
  spec.timeout_ms = 1500;
  const absl::Time started = absl::Now();
  const RunOutcome run = RunInGuest(*channel_, spec);
  ASSERT_TRUE(run.status.ok()) << run.status;
  EXPECT_TRUE(run.result.timed_out);
  EXPECT_EQ(run.result.signal, "SIGKILL");
  EXPECT_EQ(run.out, "before\n") << "what was written before is kept";
  EXPECT_NE(run.err, "") << "the daemons did run";
  EXPECT_LT(absl::Now() - started, absl::Seconds(6));
  Report("time-out told after", absl::ToDoubleSeconds(absl::Now() - started), "s (asked: 1.5)");
  EXPECT_EQ(Shell("pidof sleep").out, "");
}

TEST_F(GuestTest, WhatEndedByItselfMayLeaveDaemons) {
  const absl::Time started = absl::Now();
  EXPECT_EQ(Shell("sleep 4243 & echo started").out, "started\n");
  EXPECT_LT(absl::Now() - started, absl::Seconds(5)) << "the pipe it holds is not waited for";
  EXPECT_NE(Shell("pidof sleep").out, "");
  EXPECT_EQ(Shell("killall sleep; sleep 0.1; pidof sleep").out, "");
}

TEST_F(GuestTest, KillByTheCallerAndByDroppingTheHandle) {
  for (const bool drop : {false, true}) {
    const auto ended = std::make_shared<std::promise<ExecResult>>();
    const auto began = std::make_shared<std::promise<void>>();
    ExecCallbacks callbacks;
    callbacks.on_output = [began](bool, std::string_view) { began->set_value(); };
    callbacks.on_exit = [ended](const ExecResult& result) { ended->set_value(result); };
    auto handle =
        channel_->StartExec(ShellSpec("setsid sleep 4244 & echo go; wait"), std::move(callbacks));
    ASSERT_TRUE(handle.ok()) << handle.status();
    began->get_future().wait();
    if (drop) {
      handle->reset();
    } else {
      (*handle)->Kill();
      auto result = ended->get_future();
      ASSERT_EQ(result.wait_for(std::chrono::seconds(10)), std::future_status::ready);
      const ExecResult end = result.get();
      EXPECT_EQ(end.signal, "SIGKILL");
      EXPECT_FALSE(end.timed_out);
    }
    // In order after the kill on the same channel, but the kill takes effect on its own time.
    EXPECT_EQ(Shell("for i in 1 2 3 4 5 6 7 8 9; do pidof sleep >/dev/null || break; "
                    "usleep 100000; done; pidof sleep")
                  .out,
              "");
  }
}

TEST_F(GuestTest, ManyAtOnce) {
  std::vector<std::future<RunOutcome>> runs;
  const absl::Time started = absl::Now();
  for (int i = 0; i < 30; ++i) {
    runs.push_back(std::async(std::launch::async, [i] {
      return Shell("head -c 100000 /dev/zero | wc -c; echo " + std::to_string(i));
    }));
  }
  for (int i = 0; i < 30; ++i) {
    const RunOutcome run = runs[i].get();
    EXPECT_TRUE(run.status.ok()) << run.status;
    EXPECT_EQ(run.out, "100000\n" + std::to_string(i) + "\n");
  }
  Report("30 at once", absl::ToDoubleSeconds(absl::Now() - started), "s");
}

TEST_F(GuestTest, ASlowReaderHoldsOnlyItselfUp) {
  ExecSpec spec = ShellSpec("dd if=/dev/zero bs=64k count=160 2>/dev/null");
  spec.max_output_bytes = 64 << 20;
  spec.auto_ack = false;
  struct State {
    std::atomic<size_t> bytes{0};
    std::promise<ExecResult> ended;
  };
  const auto state = std::make_shared<State>();
  ExecCallbacks callbacks;
  callbacks.on_output = [state](bool, std::string_view data) { state->bytes += data.size(); };
  callbacks.on_exit = [state](const ExecResult& result) { state->ended.set_value(result); };
  auto handle = channel_->StartExec(spec, std::move(callbacks));
  ASSERT_TRUE(handle.ok());
  while (state->bytes < 256 * 1024) std::this_thread::yield();
  EXPECT_EQ(Shell("echo others go on").out, "others go on\n");
  EXPECT_EQ(state->bytes, 256u * 1024) << "not a byte without credit";
  auto ended = state->ended.get_future();
  size_t acked = 0;
  while (ended.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) {
    const size_t now = state->bytes;
    (*handle)->AckOutput(now - acked);
    acked = now;
  }
  EXPECT_EQ(state->bytes, 10485760u);
}

TEST_F(GuestTest, TheRootIsAnOverlayOverAReadOnlyBase) {
  EXPECT_EQ(Shell("echo changed > /etc/motd.test && cat /etc/motd.test").out, "changed\n");
  EXPECT_EQ(Shell("cat /sys/block/vda/ro").out, "1\n");
  EXPECT_NE(Shell("echo x > /dev/vda").result.exit_code, 0);
  EXPECT_THAT(Shell("cat /proc/mounts").out, HasSubstr("overlay / overlay"));
  EXPECT_EQ(Shell("cat /proc/1/oom_score_adj; cat /proc/self/oom_score_adj").out, "-1000\n0\n");
  EXPECT_EQ(Shell("ls /proc/self/fd | wc -l").out, "4\n") << "0, 1, 2 and ls's own";
  EXPECT_EQ(Shell("ls /sys/class/net").out, "lo\n");
  EXPECT_EQ(Shell("ping -c 1 -W 2 127.0.0.1 >/dev/null; echo $?").out, "0\n");
  EXPECT_EQ(Shell("df -h / | tail -n 1 | cut -d' ' -f1").out, "overlay\n");
}

TEST_F(GuestTest, PidOneDoesNotDie) {
  ExecSpec spec = ShellSpec("kill -9 1; kill -TERM 1; kill -SEGV 1; echo tried");
  EXPECT_EQ(RunInGuest(*channel_, spec).out, "tried\n");
  EXPECT_TRUE(channel_->Ping(absl::Seconds(5)).ok());
}

TEST_F(GuestTest, ThreeReconnectsInMidCommand) {
  for (int round = 0; round < 3; ++round) {
    const auto ended = std::make_shared<std::promise<absl::Status>>();
    const auto flowing = std::make_shared<std::promise<void>>();
    const auto seen = std::make_shared<std::atomic<bool>>(false);
    ExecCallbacks callbacks;
    callbacks.on_output = [flowing, seen](bool, std::string_view) {
      if (!seen->exchange(true)) flowing->set_value();
    };
    callbacks.on_error = [ended](const absl::Status& status) { ended->set_value(status); };
    callbacks.on_exit = [ended](const ExecResult&) { ended->set_value(absl::OkStatus()); };
    ExecSpec spec = ShellSpec("setsid sleep 4245 & cat >/dev/null & yes BKF1BKF1");
    spec.max_output_bytes = uint64_t{1} << 40;
    spec.timeout_ms = 0;
    auto handle = channel_->StartExec(spec, std::move(callbacks));
    ASSERT_TRUE(handle.ok()) << handle.status();
    flowing->get_future().wait();
    // Bytes in both directions are in flight now. The stdin ones look like frames.
    (*handle)->TryWriteStdin(std::string(200'000, 'B'));
    delete channel_;
    EXPECT_FALSE(ended->get_future().get().ok());
    channel_ = new GuestChannel(guest_->ChannelOptions());
    const absl::Time started = absl::Now();
    const absl::Status ready = channel_->WaitReady(absl::Seconds(20));
    ASSERT_TRUE(ready.ok()) << ready;
    Report("reconnect to hello", absl::ToDoubleMilliseconds(absl::Now() - started), "ms");
    EXPECT_EQ(Shell("echo $FROM_IMAGE").out, "yes\n") << "the configuration stays";
    EXPECT_EQ(Shell("for i in 1 2 3 4 5 6 7 8 9; do pidof sleep yes >/dev/null || break; "
                    "usleep 100000; done; pidof sleep yes")
                  .out,
              "")
        << "commands of the session before are killed";
  }
}

TEST_F(GuestTest, ExecRoundTrip) {
  std::vector<double> millis;
  for (int i = 0; i < 20; ++i) {
    const absl::Time started = absl::Now();
    EXPECT_EQ(Argv({"true"}).result.exit_code, 0);
    millis.push_back(absl::ToDoubleMilliseconds(absl::Now() - started));
  }
  std::sort(millis.begin(), millis.end());
  Report("exec true median", millis[10], "ms");
}

TEST_F(GuestTest, ZShutdownEndsTheMachineAndLeavesACleanDisk) {
  EXPECT_EQ(Shell("dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null; echo kept > /kept").err, "");
  const absl::Time started = absl::Now();
  ASSERT_TRUE(channel_->Shutdown(absl::Seconds(2)).ok());
  const int status = guest_->WaitForEnd(absl::Seconds(20));
  Report("shutdown", absl::ToDoubleSeconds(absl::Now() - started), "s");
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_EQ(std::system(("e2fsck -fn '" + guest_->rw_disk() + "' 2>&1").c_str()), 0);
}

}  // namespace
}  // namespace bunker::agent
