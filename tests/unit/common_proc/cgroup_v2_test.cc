// CgroupRoot against the kernel's own version 2: what is written is read back and holds. It changes
// the control groups of the machine that it runs on, so it runs as root inside a bunker: see
// tests/e2e/test_cgroup_v2.py.
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "common/proc/cgroup.h"
#include "gtest/gtest.h"

namespace bunker {
namespace {

using std::chrono::steady_clock;

constexpr char kMount[] = "/sys/fs/cgroup";
const std::string kService = std::string(kMount) + "/service";
const std::string kGroups = kService + "/vms";

std::string Read(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream out;
  out << in.rdbuf();
  std::string text = out.str();
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

void Write(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
}

// "nr_throttled 7" in cpu.stat and its like.
int64_t Counter(const std::string& path, const std::string& name) {
  std::ifstream in(path);
  std::string key;
  int64_t value = 0;
  while (in >> key >> value) {
    if (key == name) return value;
  }
  return -1;
}

// A child that waits to be let go, does its work, and ends with its result.
class Child {
 public:
  explicit Child(const std::function<int()>& work) {
    EXPECT_EQ(pipe(go_), 0);
    pid_ = fork();
    if (pid_ == 0) {
      char byte;
      close(go_[1]);
      if (read(go_[0], &byte, 1) != 1) _exit(99);
      _exit(work());
    }
    close(go_[0]);
  }
  ~Child() {
    if (go_[1] >= 0) close(go_[1]);
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  void Go() { EXPECT_EQ(write(go_[1], "g", 1), 1); }
  // Its status, as wait(2) has it.
  int Wait() {
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    pid_ = -1;
    return status;
  }

 private:
  int go_[2] = {-1, -1};
  pid_t pid_ = -1;
};

// As a service that systemd has given a subtree: this process is in its leaf `agent`.
class CgroupV2Test : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const std::string controllers = " " + Read(std::string(kMount) + "/cgroup.controllers") + " ";
    for (const char* name : {" cpu ", " memory ", " pids "})
      ASSERT_NE(controllers.find(name), std::string::npos) << controllers;
    Write(std::string(kMount) + "/cgroup.subtree_control", "+cpu +memory +pids");
    ASSERT_EQ(mkdir(kService.c_str(), 0755), 0) << errno;
    // In the service's own group, not in a leaf of it, nothing may be made.
    Write(kService + "/cgroup.procs", std::to_string(getpid()));
    const auto refused = CgroupRoot::Open("vms");
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnavailable) << refused.status();
    EXPECT_NE(std::string(refused.status().message()).find("DelegateSubgroup"), std::string::npos);
    ASSERT_EQ(mkdir((kService + "/agent").c_str(), 0755), 0) << errno;
    Write(kService + "/agent/cgroup.procs", std::to_string(getpid()));
    ASSERT_EQ(Read("/proc/self/cgroup"), "0::/service/agent");
  }

  void SetUp() override {
    auto root = CgroupRoot::Open("vms");
    ASSERT_TRUE(root.ok()) << root.status();
    ASSERT_EQ(root->version(), 2);
    root_ = std::make_unique<CgroupRoot>(*std::move(root));
  }
  std::string File(const std::string& name) { return kGroups + "/a.1/" + name; }

  std::unique_ptr<CgroupRoot> root_;
};

TEST_F(CgroupV2Test, LimitsAreReadBackAndMayBeChanged) {
  ASSERT_TRUE(root_->Create("a.1", {500, 32 << 20, 64}).ok());
  EXPECT_EQ(Read(File("cpu.max")), "10000 20000");
  EXPECT_EQ(Read(File("memory.max")), std::to_string(32 << 20));
  EXPECT_EQ(Read(File("pids.max")), "64");
  ASSERT_TRUE(root_->Create("a.1", {1500, 0, 0}).ok());
  EXPECT_EQ(Read(File("cpu.max")), "30000 20000");
  EXPECT_EQ(Read(File("memory.max")), std::to_string(32 << 20)) << "0: as it is";
  EXPECT_EQ(root_->List(), std::vector<std::string>{"a.1"});
  ASSERT_TRUE(root_->Remove("a.1").ok());
  EXPECT_TRUE(root_->List().empty());
  EXPECT_TRUE(root_->Remove("a.1").ok()) << "none there is fine";
  ASSERT_TRUE(root_->Create("b.1", {}).ok());
  EXPECT_EQ(Read(kGroups + "/b.1/cpu.max").substr(0, 4), "max ");
  EXPECT_TRUE(root_->Remove("b.1").ok());
}

TEST_F(CgroupV2Test, AProcessIsMovedAndAGroupGoesWithItsLast) {
  Child child([] { return 7; });
  ASSERT_TRUE(root_->Create("a.1", {500, 32 << 20, 64}).ok());
  ASSERT_TRUE(root_->Add("a.1", child.pid()).ok());
  EXPECT_EQ(Read("/proc/" + std::to_string(child.pid()) + "/cgroup"), "0::/service/vms/a.1");
  EXPECT_EQ(Read(File("cgroup.procs")), std::to_string(child.pid()));
  EXPECT_FALSE(root_->Remove("a.1").ok()) << "somebody is in it";
  child.Go();
  EXPECT_EQ(WEXITSTATUS(child.Wait()), 7);
  EXPECT_TRUE(root_->Remove("a.1").ok());
  EXPECT_FALSE(root_->Add("a.1", getpid()).ok());
  EXPECT_EQ(Read("/proc/self/cgroup"), "0::/service/agent");
}

TEST_F(CgroupV2Test, TheCpuQuotaThrottles) {
  Child child([] {
    const auto end = steady_clock::now() + std::chrono::seconds(3);
    volatile uint64_t spins = 0;
    while (steady_clock::now() < end) spins = spins + 1;
    return 0;
  });
  ASSERT_TRUE(root_->Create("a.1", {200, 0, 0}).ok());
  ASSERT_TRUE(root_->Add("a.1", child.pid()).ok());
  const auto begun = steady_clock::now();
  child.Go();
  EXPECT_EQ(child.Wait(), 0);
  const auto took = std::chrono::duration<double>(steady_clock::now() - begun).count();
  const double used = static_cast<double>(Counter(File("cpu.stat"), "usage_usec")) / 1e6;
  std::printf("FIGURE cpu: %.2f of a CPU, %lld times throttled\n", used / took,
              static_cast<long long>(Counter(File("cpu.stat"), "nr_throttled")));
  EXPECT_GT(Counter(File("cpu.stat"), "nr_throttled"), 10);
  EXPECT_LT(used / took, 0.3) << "0.2 and what a period's end costs";
  EXPECT_TRUE(root_->Remove("a.1").ok());
}

TEST_F(CgroupV2Test, WhoTakesMoreMemoryIsKilled) {
  const auto eat = [] {
    constexpr size_t kBytes = 48 << 20;
    auto* bytes = static_cast<volatile char*>(
        mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (size_t at = 0; at < kBytes; at += 4096) bytes[at] = 1;
    return 0;
  };
  for (const uint64_t limit : {uint64_t{16} << 20, uint64_t{0}}) {
    Child child(eat);
    ASSERT_TRUE(root_->Create("a.1", {0, limit, 0}).ok());
    ASSERT_TRUE(root_->Add("a.1", child.pid()).ok());
    child.Go();
    const int status = child.Wait();
    EXPECT_EQ(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, limit > 0) << status;
    EXPECT_EQ(Counter(File("memory.events"), "oom_kill"), limit > 0 ? 1 : 0);
    EXPECT_TRUE(root_->Remove("a.1").ok());
  }
}

TEST_F(CgroupV2Test, SoManyProcessesAndNoMore) {
  Child child([] {
    std::vector<pid_t> made;
    pid_t pid = 0;
    while (made.size() < 20 && (pid = fork()) > 0) made.push_back(pid);
    if (pid == 0) {
      pause();
      _exit(0);
    }
    const bool refused = pid < 0 && errno == EAGAIN;
    for (const pid_t each : made) {
      kill(each, SIGKILL);
      waitpid(each, nullptr, 0);
    }
    return refused ? static_cast<int>(made.size()) : 99;
  });
  ASSERT_TRUE(root_->Create("a.1", {0, 0, 8}).ok());
  ASSERT_TRUE(root_->Add("a.1", child.pid()).ok());
  child.Go();
  const int status = child.Wait();
  EXPECT_EQ(WEXITSTATUS(status), 7) << status;
  EXPECT_GT(Counter(File("pids.events"), "max"), 0);
  EXPECT_TRUE(root_->Remove("a.1").ok());
}

}  // namespace
}  // namespace bunker
