// A real QEMU with a real kernel in it, through the driver: boot, confinement as /proc shows it,
// disks, locks, adoption, ends.
#include "agent/vm/qemu_microvm.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "agent/vm/qmp_client.h"
#include "agent/vm/trial_boot.h"
#include "agent/vm/vm_args.h"
#include "common/base/files.h"
#include "common/base/sha256.h"
#include "common/proc/deadline.h"
#include "common/proc/subprocess.h"
#include "tests/unit/agent_vm/vm_fixture.h"

namespace bunker::agent {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class QemuMicrovmTest : public VmFixture {
 protected:
  // The guest's end of the channel, once the guest has said that it is up.
  TinyGuest Connect(const RunningVm& record) {
    absl::StatusOr<UniqueFd> channel = driver_.OpenChannel(record);
    EXPECT_TRUE(channel.ok()) << channel.status();
    return TinyGuest(channel.ok() ? *std::move(channel) : UniqueFd());
  }
  TinyGuest AwaitReady(const RunningVm& record) {
    TinyGuest guest = Connect(record);
    EXPECT_EQ(guest.ReadLine(), "READY");
    return guest;
  }
  std::string BaseHash() { return Sha256Hex(*ReadFile(root_ + "/base", 256 << 20)); }
  bool Runs(const RunningVm& record) { return driver_.Adopt(record).ok(); }
};

// Every mount but the private disk is read-only, and none of the host's is left.
void ExpectJailMountsOnly(const std::string& proc) {
  std::ifstream mounts(proc + "/mounts");
  std::string line;
  std::set<std::string> writable;
  while (std::getline(mounts, line)) {
    std::vector<std::string> words;
    std::istringstream parts(line);
    for (std::string word; parts >> word;) words.push_back(word);
    ASSERT_GE(words.size(), 4u);
    EXPECT_THAT(words[1], AnyOf("/", "/dev/null", StartsWith("/usr/"), StartsWith("/vm/"))) << line;
    EXPECT_THAT(words[3], HasSubstr("nosuid"));
    EXPECT_EQ(words[3].find("nodev") == std::string::npos, words[1] == "/dev/null") << line;
    const bool programs = words[1].rfind("/usr/lib", 0) == 0 || words[1].rfind("/usr/bin", 0) == 0;
    EXPECT_EQ(words[3].find("noexec") == std::string::npos, programs) << line;
    if (words[3].rfind("rw,", 0) == 0) writable.insert(words[1]);
  }
  EXPECT_EQ(writable, (std::set<std::string>{"/dev/null", kJailRwDisk}));
}

TEST_F(QemuMicrovmTest, BootsAnswersAndPowersOff) {
  const VmSpec spec = MakeSpec("bkr_boot.1");
  absl::StatusOr<VmHandle> vm = Start(spec);
  ASSERT_TRUE(vm.ok()) << vm.status();
  EXPECT_EQ(vm->record(), journalled_);
  TinyGuest guest = AwaitReady(vm->record());
  EXPECT_EQ(guest.Ask("ping"), "pong");
  EXPECT_EQ(guest.Ask("nics"), "lo ");
  EXPECT_EQ(guest.Ask("devices"), "virtio0 virtio1 virtio2 ");
  EXPECT_EQ(guest.Ask("disks"), "vda:serial=base,ro=1 vdb:serial=rw,ro=0 ");
  guest.Send("off");
  absl::StatusOr<ProcessExit> exit = vm->process().Wait(absl::Seconds(20));
  ASSERT_TRUE(exit.ok()) << exit.status();
  absl::StatusOr<VmExit> end = driver_.Reap(*vm);
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(DescribeExit(end->process), "exit code 0") << end->detail;
  ASSERT_TRUE(driver_.Clean(spec.folder).ok());
  EXPECT_TRUE(driver_.Clean(spec.folder).ok()) << "twice is fine";
  ASSERT_TRUE(fs::remove(spec.rw_disk));
  EXPECT_TRUE(fs::is_empty(spec.folder)) << "nothing else was left";
}

TEST_F(QemuMicrovmTest, PausedItAnswersNothingAndResumedItGoesOn) {
  absl::StatusOr<VmHandle> vm = Start(MakeSpec("bkr_pause.1"));
  ASSERT_TRUE(vm.ok()) << vm.status();
  TinyGuest guest = AwaitReady(vm->record());
  ASSERT_TRUE(driver_.Pause(vm->record()).ok());
  EXPECT_TRUE(driver_.Pause(vm->record()).ok()) << "twice is fine";
  guest.Send("ping");
  EXPECT_EQ(guest.ReadLine(absl::Milliseconds(300)), "(timeout)");
  // As an agent that came back would: by the record alone.
  ASSERT_TRUE(driver_.Adopt(journalled_).ok());
  ASSERT_TRUE(driver_.Resume(journalled_).ok());
  EXPECT_EQ(guest.ReadLine(), "pong") << "what was asked meanwhile is answered";
  EXPECT_TRUE(driver_.Resume(journalled_).ok()) << "twice is fine";
  EXPECT_EQ(guest.Ask("ping"), "pong");
}

TEST_F(QemuMicrovmTest, APausedVmCanBeEnded) {
  absl::StatusOr<VmHandle> vm = Start(MakeSpec("bkr_pause.2"));
  ASSERT_TRUE(vm.ok()) << vm.status();
  TinyGuest guest = AwaitReady(vm->record());
  ASSERT_TRUE(driver_.Pause(vm->record()).ok());
  absl::StatusOr<VmExit> end = driver_.Stop(*vm, absl::Seconds(5));
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(DescribeExit(end->process), "exit code 0") << "politely";
  EXPECT_FALSE(driver_.Pause(journalled_).ok());
  EXPECT_FALSE(driver_.Resume(journalled_).ok());
}

TEST_F(QemuMicrovmTest, IsConfinedAsProcShows) {
  absl::StatusOr<VmHandle> vm = Start(MakeSpec("bkr_jail.1"));
  ASSERT_TRUE(vm.ok()) << vm.status();
  TinyGuest guest = AwaitReady(vm->record());  // all its threads run by now
  const pid_t pid = vm->record().process.pid;

  for (const auto& entry : fs::directory_iterator(absl::StrCat("/proc/", pid, "/task"))) {
    const pid_t thread = std::stoi(entry.path().filename());
    EXPECT_EQ(StatusField(thread, "Uid"), "65301\t65301\t65301\t65301");
    EXPECT_EQ(StatusField(thread, "Gid"), "65301\t65301\t65301\t65301");
    EXPECT_EQ(StatusField(thread, "Groups"), "");
    for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
      EXPECT_EQ(StatusField(thread, set), "0000000000000000") << set;
    }
    EXPECT_EQ(StatusField(thread, "NoNewPrivs"), "1");
    EXPECT_EQ(StatusField(thread, "Seccomp"), "2");
  }
  EXPECT_THAT(StatusField(pid, "NSpid"), testing::EndsWith("\t1")) << "first of its own pids";
  for (const char* name : {"mnt", "pid", "net", "ipc", "uts", "cgroup"}) {
    EXPECT_NE(NamespaceOf(pid, name), "") << name;
    EXPECT_NE(NamespaceOf(pid, name), NamespaceOf(getpid(), name)) << name;
  }
  EXPECT_EQ(getsid(pid), pid);
  EXPECT_EQ(StatusField(pid, "THP_enabled"), "0");

  // The network namespace holds a loopback that is down, and nothing else.
  const std::string devices = *ReadFile(absl::StrCat("/proc/", pid, "/net/dev"), 65536);
  EXPECT_EQ(std::count(devices.begin(), devices.end(), '\n'), 3) << devices;
  EXPECT_THAT(devices, HasSubstr("lo:"));

  // Limits.
  const std::string limits = *ReadFile(absl::StrCat("/proc/", pid, "/limits"), 65536);
  EXPECT_THAT(limits, HasSubstr("Max core file size        0                    0 "));
  EXPECT_THAT(limits, HasSubstr("Max file size             67108864             67108864 "));
  EXPECT_THAT(limits, HasSubstr("Max open files            256                  256 "));
  EXPECT_THAT(limits, HasSubstr("Max processes             81                   81 "));
}

TEST_F(QemuMicrovmTest, SeesOnlyItsOwnFiles) {
  const int leaked = open("/etc/passwd", O_RDONLY);  // deliberately without O_CLOEXEC
  absl::StatusOr<VmHandle> vm = Start(MakeSpec("bkr_files.1"));
  close(leaked);
  ASSERT_TRUE(vm.ok()) << vm.status();
  TinyGuest guest = AwaitReady(vm->record());
  const std::string proc = absl::StrCat("/proc/", vm->record().process.pid);

  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(proc + "/root")) {
    names.insert(entry.path().filename());
  }
  EXPECT_EQ(names, (std::set<std::string>{"dev", "lib", "lib64", "usr", "vm"}));
  names.clear();
  for (const auto& entry : fs::directory_iterator(proc + "/root/dev")) {
    names.insert(entry.path().filename());
  }
  EXPECT_EQ(names, (std::set<std::string>{"null"}));
  names.clear();
  for (const auto& entry : fs::directory_iterator(proc + "/root/usr")) {
    names.insert(entry.path().filename());
  }
  EXPECT_EQ(names, (std::set<std::string>{"bin", "lib", "lib64", "share"}));
  names.clear();
  for (const auto& entry : fs::directory_iterator(proc + "/root/usr/bin")) {
    names.insert(entry.path().filename());
  }
  EXPECT_EQ(names, (std::set<std::string>{"qemu-system-x86_64"}));

  ExpectJailMountsOnly(proc);

  // Open files: the two disks, sockets, pipes and the kernel's own kinds.
  for (const auto& entry : fs::directory_iterator(proc + "/fd")) {
    // By what they are: in a plain chroot the kernel spells their paths as this process sees them.
    const std::string root = proc + "/root";
    if (fs::exists(entry) && (fs::equivalent(entry, root + kJailBaseDisk) ||
                              fs::equivalent(entry, root + kJailRwDisk))) {
      continue;
    }
    EXPECT_THAT(fs::read_symlink(entry).string(),
                AnyOf("/dev/null", StartsWith("socket:"), StartsWith("pipe:"),
                      StartsWith("anon_inode:"), StartsWith("/memfd:")))
        << entry.path();
  }
}

bool RootIsMount() {
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    const std::vector<std::string> fields = absl::StrSplit(line, ' ');
    if (fields.size() > 4 && fields[4] == "/") return true;
  }
  return false;
}

// As some units and containers leave it: another mount lies over the agent's own root.
TEST_F(QemuMicrovmTest, NothingIsLeftOfStackedRoots) {
  const VmSpec spec = MakeSpec("bkr_stacked.1");
  int started[2];
  ASSERT_EQ(pipe2(started, O_CLOEXEC), 0);
  const pid_t agent = fork();
  if (agent == 0) {
    // In a plain chroot the root is no mount yet, so that nothing could lie over it.
    if (unshare(CLONE_NEWNS) != 0 ||
        (!RootIsMount() && (mount("/", "/mnt", nullptr, MS_BIND | MS_REC, nullptr) != 0 ||
                            chroot("/mnt") != 0 || chdir("/") != 0)) ||
        mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("/", "/", nullptr, MS_BIND | MS_REC, nullptr) != 0) {
      _exit(1);
    }
    absl::StatusOr<VmHandle> vm = Start(spec);
    if (!vm.ok()) _exit(2);
    if (write(started[1], &vm->record().process.pid, sizeof(pid_t)) < 0) _exit(3);
    while (true) pause();
  }
  close(started[1]);
  pid_t pid = 0;
  ASSERT_EQ(read(started[0], &pid, sizeof(pid)), ssize_t{sizeof(pid)});
  close(started[0]);
  const std::string proc = absl::StrCat("/proc/", pid);
  ExpectJailMountsOnly(proc);
  kill(agent, SIGKILL);
  waitpid(agent, nullptr, 0);
  absl::StatusOr<ProcessHandle> vm = ProcessHandle::Open(*ReadIdentity(pid));
  ASSERT_TRUE(vm.ok()) << vm.status();
  EXPECT_TRUE(vm->Kill(absl::Seconds(5)).ok());
}

TEST_F(QemuMicrovmTest, TheBaseCannotBeWrittenFromInside) {
  const std::string before = BaseHash();
  absl::StatusOr<VmHandle> vm = Start(MakeSpec("bkr_base.1"));
  ASSERT_TRUE(vm.ok()) << vm.status();
  TinyGuest guest = AwaitReady(vm->record());
  EXPECT_THAT(guest.Ask("write-base"), Not("written"));
  EXPECT_TRUE(driver_.Kill(*vm).ok());
  EXPECT_EQ(BaseHash(), before);
}

TEST_F(QemuMicrovmTest, TheUserOfAVmCanNeitherWriteTheBaseNorReadAnothersDisk) {
  const VmSpec mine = MakeSpec("bkr_mine.1");
  const VmSpec other = MakeSpec("bkr_other.1", kTestUid + 1);
  const pid_t pid = fork();
  if (pid == 0) {
    // Out of the folders' protection, as if the jail had failed: the modes alone must hold.
    const int base = open(mine.base_disk.c_str(), O_PATH);
    const int disk = open(other.rw_disk.c_str(), O_PATH);
    if (setresgid(mine.uid, mine.uid, mine.uid) != 0) _exit(9);
    if (setresuid(mine.uid, mine.uid, mine.uid) != 0) _exit(9);
    const std::string base_path = absl::StrCat("/proc/self/fd/", base);
    const std::string disk_path = absl::StrCat("/proc/self/fd/", disk);
    if (open(base_path.c_str(), O_RDONLY) < 0) _exit(1);
    if (open(base_path.c_str(), O_RDWR) >= 0) _exit(2);
    if (chmod(base_path.c_str(), 0666) == 0) _exit(3);
    if (open(disk_path.c_str(), O_RDONLY) >= 0) _exit(4);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(QemuMicrovmTest, TwoVmsShareTheBaseButNotARwDisk) {
  const VmSpec first_spec = MakeSpec("bkr_one.1");
  absl::StatusOr<VmHandle> first = Start(first_spec);
  ASSERT_TRUE(first.ok()) << first.status();
  const RunningVm first_record = journalled_;
  absl::StatusOr<VmHandle> second = Start(MakeSpec("bkr_two.1"));
  ASSERT_TRUE(second.ok()) << second.status();

  VmSpec thief = MakeSpec("bkr_thief.1");
  thief.rw_disk = first_spec.rw_disk;
  absl::StatusOr<VmHandle> third = Start(thief);
  EXPECT_THAT(third.status().ToString(), HasSubstr("Failed to get \"write\" lock"));
  EXPECT_TRUE(fs::exists(thief.folder));
  EXPECT_FALSE(fs::exists(thief.folder + "/channel.sock")) << "nothing of it is left";
  EXPECT_FALSE(fs::exists(thief.folder + "/jail"));
  EXPECT_FALSE(Runs(journalled_));
  EXPECT_TRUE(driver_.Kill(*first).ok());
  EXPECT_TRUE(driver_.Kill(*second).ok());
}

TEST_F(QemuMicrovmTest, TheRwDiskMountsAndSurvivesBeingCutOff) {
  const VmSpec spec = MakeSpec("bkr_dirty.1");
  absl::StatusOr<VmHandle> vm = Start(spec);
  ASSERT_TRUE(vm.ok()) << vm.status();
  {
    TinyGuest guest = AwaitReady(vm->record());
    EXPECT_EQ(guest.Ask("mount-rw"), "bytes=5");
    EXPECT_EQ(guest.Ask("dirty"), "writing");
    EXPECT_EQ(guest.ReadLine(absl::Seconds(2)), "(timeout)") << "busy writing";
  }
  EXPECT_TRUE(driver_.Kill(*vm).ok());
  ASSERT_TRUE(driver_.Clean(spec.folder).ok());

  vm = Start(spec);
  ASSERT_TRUE(vm.ok()) << vm.status();
  TinyGuest guest = AwaitReady(vm->record());
  EXPECT_EQ(guest.Ask("mount-rw"), "bytes=10") << "what was synced is there";
  guest.Send("off");
  ASSERT_TRUE(vm->process().Wait(absl::Seconds(20)).ok());
}

TEST_F(QemuMicrovmTest, ANewClientOfTheChannelCanConnectAgainAndAgain) {
  absl::StatusOr<VmHandle> vm = Start(MakeSpec("bkr_again.1"));
  ASSERT_TRUE(vm.ok()) << vm.status();
  { AwaitReady(vm->record()); }
  for (int i = 0; i < 3; ++i) {
    TinyGuest guest = Connect(vm->record());
    EXPECT_EQ(guest.Ask("ping"), "pong");
  }
}

TEST_F(QemuMicrovmTest, TheConsoleIsBoundedAndReadable) {
  VmSpec spec = MakeSpec("bkr_console.1");
  spec.console_kib = 16;
  absl::StatusOr<VmHandle> vm = Start(spec);
  ASSERT_TRUE(vm.ok()) << vm.status();
  TinyGuest guest = AwaitReady(vm->record());
  EXPECT_EQ(guest.Ask("flood"), "flooded");  // 4 MiB
  absl::StatusOr<std::string> console = driver_.ReadConsole(vm->record());
  ASSERT_TRUE(console.ok()) << console.status();
  EXPECT_LE(console->size(), 16u * 1024);
  EXPECT_GT(console->size(), 8u * 1024);
  EXPECT_THAT(*console, HasSubstr("end of flood"));
  EXPECT_EQ(guest.Ask("ping"), "pong");
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(spec.folder)) {
    names.insert(entry.path().filename());
  }
  EXPECT_EQ(names, (std::set<std::string>{"channel.sock", "control.sock", "jail", "rw.ext4"}));
}

TEST_F(QemuMicrovmTest, APanicAndAResetEndTheVm) {
  for (const char* word : {"panic", "reset"}) {
    absl::StatusOr<VmHandle> vm = Start(MakeSpec(absl::StrCat("bkr_", word, ".1")));
    ASSERT_TRUE(vm.ok()) << vm.status();
    TinyGuest guest = AwaitReady(vm->record());
    guest.Send(word);
    absl::StatusOr<ProcessExit> exit = vm->process().Wait(absl::Seconds(20));
    ASSERT_TRUE(exit.ok()) << word << ": " << exit.status();
  }
}

TEST_F(QemuMicrovmTest, StopAsksAndStopKillsWhatIsStuck) {
  absl::StatusOr<VmHandle> vm = Start(MakeSpec("bkr_stop.1"));
  ASSERT_TRUE(vm.ok()) << vm.status();
  absl::StatusOr<VmExit> end = driver_.Stop(*vm, absl::Seconds(5));
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(DescribeExit(end->process), "exit code 0");
  EXPECT_TRUE(driver_.Stop(*vm, absl::Seconds(5)).ok()) << "an ended VM is no error";

  vm = Start(MakeSpec("bkr_stuck.1"));
  ASSERT_TRUE(vm.ok()) << vm.status();
  ASSERT_TRUE(vm->process().Signal(SIGSTOP).ok());
  const absl::Duration start = MonotonicTime();
  end = driver_.Stop(*vm, absl::Milliseconds(500));
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(end->process.signal, SIGKILL);
  EXPECT_LT(MonotonicTime() - start, absl::Seconds(5));
}

TEST_F(QemuMicrovmTest, AKilledAgentsVmLivesAndIsAdopted) {
  const VmSpec spec = MakeSpec("bkr_adopt.1");
  int started[2];
  ASSERT_EQ(pipe2(started, O_CLOEXEC), 0);
  const pid_t agent = fork();
  if (agent == 0) {
    setsid();
    CancelToken cancel;
    QemuMicrovm driver{QemuOptions{}};
    absl::StatusOr<VmHandle> vm =
        driver.Start(spec, [](const RunningVm&) { return absl::OkStatus(); }, cancel);
    if (!vm.ok()) _exit(1);
    absl::StatusOr<UniqueFd> channel = driver.OpenChannel(vm->record());
    const ProcessIdentity& identity = vm->record().process;
    if (write(started[1], &identity.pid, sizeof(pid_t)) < 0) _exit(1);
    if (write(started[1], &identity.start_time_ticks, sizeof(uint64_t)) < 0) _exit(1);
    while (true) pause();
  }
  close(started[1]);
  ProcessIdentity identity{.pid = 0, .start_time_ticks = 0, .boot_id = HostBootId()};
  ASSERT_EQ(read(started[0], &identity.pid, sizeof(pid_t)), ssize_t{sizeof(pid_t)});
  ASSERT_EQ(read(started[0], &identity.start_time_ticks, 8), 8);
  close(started[0]);
  kill(agent, SIGKILL);
  ASSERT_EQ(waitpid(agent, nullptr, 0), agent);

  const RunningVm record{.driver = "qemu-microvm",
                         .process = identity,
                         .uid = spec.uid,
                         .folder = spec.folder,
                         .channel_path = spec.folder + "/channel.sock",
                         .control_path = spec.folder + "/control.sock"};
  journalled_ = record;
  absl::StatusOr<VmHandle> vm = driver_.Adopt(record);
  ASSERT_TRUE(vm.ok()) << vm.status();
  // Its death took the only client of the channel and the reader of the VMM's stderr with it.
  TinyGuest guest = Connect(record);
  std::string answer = guest.Ask("ping");
  if (answer == "READY") answer = guest.ReadLine();
  EXPECT_EQ(answer, "pong");
  EXPECT_TRUE(driver_.ReadConsole(record).ok());
  absl::StatusOr<VmExit> end = driver_.Stop(*vm, absl::Seconds(5));
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_TRUE(absl::IsNotFound(driver_.Adopt(record).status()));
}

// The agent dies between the clone and the word: the process must not go on unknown.
TEST_F(QemuMicrovmTest, AProcessNobodyJournalledEndsByItself) {
  const VmSpec spec = MakeSpec("bkr_gate.1");
  int spawned_pid[2];
  ASSERT_EQ(pipe(spawned_pid), 0);
  const pid_t agent = fork();
  if (agent == 0) {
    CancelToken cancel;
    QemuMicrovm driver{QemuOptions{}};
    (void)driver.Start(
        spec,
        [&](const RunningVm& record) -> absl::Status {
          if (write(spawned_pid[1], &record.process.pid, sizeof(pid_t)) < 0) _exit(1);
          while (true) pause();  // never journalled
        },
        cancel);
    _exit(0);
  }
  pid_t pid = 0;
  ASSERT_EQ(read(spawned_pid[0], &pid, sizeof(pid)), static_cast<ssize_t>(sizeof(pid)));
  absl::StatusOr<ProcessHandle> gated = ProcessHandle::Open(*ReadIdentity(pid));
  ASSERT_TRUE(gated.ok()) << gated.status();
  kill(agent, SIGKILL);
  waitpid(agent, nullptr, 0);
  EXPECT_TRUE(gated->Wait(absl::Seconds(5)).ok());
  close(spawned_pid[0]);
  close(spawned_pid[1]);
}

TEST_F(QemuMicrovmTest, AFailedJournalWriteStartsNothing) {
  const VmSpec spec = MakeSpec("bkr_journal.1");
  absl::StatusOr<VmHandle> vm = driver_.Start(
      spec,
      [this](const RunningVm& record) {
        journalled_ = record;
        return absl::ResourceExhaustedError("the journal is full");
      },
      cancel_);
  EXPECT_THAT(vm.status().ToString(), HasSubstr("the journal is full"));
  EXPECT_FALSE(Runs(journalled_));
  EXPECT_FALSE(fs::exists(spec.folder + "/control.sock"));
}

TEST_F(QemuMicrovmTest, CancelLeavesNothing) {
  const VmSpec spec = MakeSpec("bkr_cancel.1");
  absl::StatusOr<VmHandle> vm = driver_.Start(
      spec,
      [this](const RunningVm& record) {
        journalled_ = record;
        cancel_.Cancel();
        return absl::OkStatus();
      },
      cancel_);
  EXPECT_TRUE(absl::IsCancelled(vm.status())) << vm.status();
  EXPECT_FALSE(Runs(journalled_));
  EXPECT_FALSE(fs::exists(spec.folder + "/control.sock"));
}

TEST_F(QemuMicrovmTest, SaysWhyQemuDidNotStart) {
  VmSpec spec = MakeSpec("bkr_bad.1");
  std::ofstream(root_ + "/nokernel") << "this is no kernel";
  chmod((root_ + "/nokernel").c_str(), 0444);
  spec.kernel = root_ + "/nokernel";
  absl::StatusOr<VmHandle> vm = Start(spec);
  EXPECT_THAT(vm.status().ToString(), HasSubstr("QEMU did not start (exit code 1)"));
  EXPECT_THAT(vm.status().ToString(), HasSubstr("kernel"));
  QemuOptions options;
  options.binary = "/no/qemu";
  QemuMicrovm missing(options);
  vm = missing.Start(MakeSpec("bkr_noqemu.1"), [](const RunningVm&) { return absl::OkStatus(); },
                     cancel_);
  EXPECT_THAT(vm.status().ToString(), HasSubstr("install qemu-system-x86"));
}

TEST_F(QemuMicrovmTest, AFolderInUseIsNotTaken) {
  const VmSpec spec = MakeSpec("bkr_twice.1");
  absl::StatusOr<VmHandle> first = Start(spec);
  ASSERT_TRUE(first.ok()) << first.status();
  const RunningVm record = journalled_;
  EXPECT_TRUE(absl::IsAlreadyExists(Start(spec).status()));
  EXPECT_TRUE(Runs(record));
  EXPECT_TRUE(fs::exists(record.control_path)) << "the refused start removed nothing";
  EXPECT_TRUE(driver_.ReadConsole(record).ok());
}

TEST_F(QemuMicrovmTest, TheTrialBootTellsAWorkingAcceleratorFromABrokenOne) {
  TrialBoot trial{.kernel = MakeSpec("bkr_unused.1").kernel,
                  .initrd = root_ + "/initrd",
                  .scratch_dir = root_,
                  .uid = kTestUid,
                  .accelerator = Accelerator::kSoftware,
                  .timeout = absl::Seconds(30)};
  EXPECT_TRUE(RunTrialBoot(driver_, trial, cancel_).ok());
  trial.initrd = root_ + "/base";  // boots, but to no PID 1 of ours
  const absl::Status failed = RunTrialBoot(driver_, trial, cancel_);
  EXPECT_THAT(failed.ToString(), HasSubstr("boot the guest kernel"));
}

TEST_F(QemuMicrovmTest, TheProbeAnswersForThisHostInWords) {
  QemuOptions options;
  options.kernel = MakeSpec("bkr_unused.1").kernel;
  options.initrd = root_ + "/initrd";
  options.scratch_dir = root_;
  options.probe_uid = kTestUid;
  QemuMicrovm driver(options);
  absl::StatusOr<AcceleratorVerdict> verdict = driver.Probe(cancel_);
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  EXPECT_EQ(verdict->accelerator == Accelerator::kHardware, verdict->reason.empty());
  RecordProperty("accelerator", AcceleratorName(verdict->accelerator));
  RecordProperty("reason", verdict->reason);
  if (verdict->accelerator == Accelerator::kSoftware) {
    options.accelerator = "kvm";
    EXPECT_TRUE(absl::IsFailedPrecondition(QemuMicrovm(options).Probe(cancel_).status()));
  }
  options.accelerator = "tcg";
  EXPECT_EQ(QemuMicrovm(options).Probe(cancel_)->accelerator, Accelerator::kSoftware);
}

}  // namespace
}  // namespace bunker::agent
