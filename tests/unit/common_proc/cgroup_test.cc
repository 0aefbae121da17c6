// Against folders that look like a host's: what is written where. The kernel's own part is tested
// with real VMs (tests/e2e/test_lifecycle.py) and, for version 2, inside one (cgroup_v2_test.cc).
#include "common/proc/cgroup.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "common/proc/process_usage.h"
#include "gtest/gtest.h"
#include "tests/support/temp_dir.h"

namespace bunker {
namespace {

namespace fs = std::filesystem;

class CgroupTest : public testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(path).parent_path());
    std::ofstream(path) << text;
  }
  std::string Read(const std::string& path) {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  CgroupRoot::Paths Paths() { return {dir_.File("mounts"), dir_.File("self")}; }

  test::TempDir dir_;
};

TEST_F(CgroupTest, VersionOneHasAFolderInEachHierarchy) {
  std::string mounts;
  for (const char* name : {"cpu", "memory", "pids"}) {
    const std::string folder = dir_.File(name);
    mounts += "cgroup " + folder + " cgroup rw,relatime," + name + " 0 0\n";
    Write(folder + "/own/cgroup.procs", "");
  }
  Write(dir_.File("mounts"), mounts + "cgroup2 /nowhere cgroup2 rw 0 0\n");
  Write(dir_.File("self"), "3:pids:/gone\n2:memory:/own\n1:cpu:/own\n0::/\n");
  const auto root = CgroupRoot::Open("vms", Paths());
  ASSERT_TRUE(root.ok()) << root.status();
  EXPECT_EQ(root->version(), 1);
  // The kernel makes these files with the folder.
  for (const char* file : {"cpu/own/vms/a.1/cpu.cfs_period_us", "cpu/own/vms/a.1/cpu.cfs_quota_us",
                           "cpu/own/vms/a.1/cgroup.procs",
                           "memory/own/vms/a.1/memory.limit_in_bytes",
                           "memory/own/vms/a.1/cgroup.procs", "pids/vms/a.1/pids.max",
                           "pids/vms/a.1/cgroup.procs"}) {
    Write(dir_.File(file), "");
  }
  ASSERT_TRUE(root->Create("a.1", {1500, 352u << 20, 256}).ok());
  EXPECT_EQ(Read(dir_.File("cpu/own/vms/a.1/cpu.cfs_quota_us")), "30000");
  EXPECT_EQ(Read(dir_.File("cpu/own/vms/a.1/cpu.cfs_period_us")), "20000");
  EXPECT_EQ(Read(dir_.File("memory/own/vms/a.1/memory.limit_in_bytes")), "369098752");
  EXPECT_EQ(Read(dir_.File("pids/vms/a.1/pids.max")), "256");
  ASSERT_TRUE(root->Add("a.1", 4711).ok());
  EXPECT_EQ(Read(dir_.File("pids/vms/a.1/cgroup.procs")), "4711");
  EXPECT_EQ(root->List(), std::vector<std::string>{"a.1"});
}

TEST_F(CgroupTest, VersionTwoIsUsedFromALeafOfASubtreeOfItsOwn) {
  Write(dir_.File("mounts"), "cgroup2 " + dir_.File("two") + " cgroup2 rw,relatime 0 0\n");
  Write(dir_.File("self"), "0::/service\n");
  for (const char* file : {"two/service/cgroup.subtree_control", "two/service/agent/cgroup.procs",
                           "two/service/vms/cgroup.subtree_control",
                           "two/service/vms/a.1/cpu.max", "two/service/vms/a.1/memory.max",
                           "two/service/vms/a.1/pids.max"}) {
    Write(dir_.File(file), "");
  }
  const auto refused = CgroupRoot::Open("vms", Paths());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Read(dir_.File("two/service/cgroup.subtree_control")), "");

  Write(dir_.File("self"), "0::/service/agent\n");
  const auto root = CgroupRoot::Open("vms", Paths());
  ASSERT_TRUE(root.ok()) << root.status();
  EXPECT_EQ(root->version(), 2);
  EXPECT_EQ(Read(dir_.File("two/service/cgroup.subtree_control")), "+cpu +memory +pids");
  ASSERT_TRUE(root->Create("a.1", {500, 1 << 20, 64}).ok());
  EXPECT_EQ(Read(dir_.File("two/service/vms/a.1/cpu.max")), "10000 20000");
  EXPECT_EQ(Read(dir_.File("two/service/vms/a.1/memory.max")), "1048576");
  EXPECT_EQ(Read(dir_.File("two/service/vms/a.1/pids.max")), "64");
}

TEST_F(CgroupTest, NamesThatAreNoPlainWordsAndHostsWithoutAnyAreErrors) {
  Write(dir_.File("mounts"), "tmpfs /tmp tmpfs rw 0 0\n");
  Write(dir_.File("self"), "");
  EXPECT_EQ(CgroupRoot::Open("vms", Paths()).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(CgroupRoot::Open("../vms", Paths()).ok());
  Write(dir_.File("mounts"), "cgroup " + dir_.File("pids") + " cgroup rw,pids 0 0\n");
  Write(dir_.File("pids/cgroup.procs"), "");
  const auto root = CgroupRoot::Open("vms", Paths());
  ASSERT_TRUE(root.ok()) << root.status();
  EXPECT_FALSE(root->Create("../x", {}).ok());
  EXPECT_FALSE(root->Remove("a/b").ok());
  EXPECT_TRUE(root->Remove("never").ok());
}

TEST(ProcessUsage, OfThisProcess) {
  const auto usage = UsageOf(::getpid());
  ASSERT_TRUE(usage.ok()) << usage.status();
  EXPECT_GT(usage->rss_bytes, 100u << 10);
  EXPECT_EQ(UsageOf(0).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace bunker
