#include "agent/vm/spec_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

namespace bunker::agent {
namespace {

using ::testing::HasSubstr;

class SpecCheckTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(geteuid(), 0u) << "needs root, as the agent does";
    char folder[] = "/tmp/bunker-spec.XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    root_ = folder;
    spec_.folder = root_ + "/bkr_1.1";
    ASSERT_EQ(mkdir(spec_.folder.c_str(), 0700), 0);
    spec_.uid = 65301;
    spec_.base_disk = File("base", 0444, 0);
    spec_.rw_disk = File("rw", 0600, spec_.uid);
    spec_.kernel = File("kernel", 0644, 0);
    spec_.initrd = File("initrd", 0444, 0);
  }
  void TearDown() override {
    if (!root_.empty()) std::filesystem::remove_all(root_);
  }
  std::string File(const std::string& name, mode_t mode, uid_t owner) {
    const std::string path = root_ + "/" + name;
    std::ofstream(path) << "x";
    EXPECT_EQ(chmod(path.c_str(), mode), 0);
    EXPECT_EQ(chown(path.c_str(), owner, owner), 0);
    return path;
  }
  std::string Refusal(const std::function<void(VmSpec&)>& change) {
    VmSpec spec = spec_;
    change(spec);
    return std::string(CheckVmSpec(spec).message());
  }

  std::string root_;
  VmSpec spec_;
};

TEST_F(SpecCheckTest, AcceptsWhatTheAgentMakes) {
  EXPECT_TRUE(CheckVmSpec(spec_).ok()) << CheckVmSpec(spec_);
}

TEST_F(SpecCheckTest, RefusesUnsafeFilesNamingTheRemedy) {
  ASSERT_EQ(chmod(spec_.base_disk.c_str(), 0644), 0);
  EXPECT_THAT(Refusal([](VmSpec&) {}), HasSubstr("must be root's and mode 0444"));
  ASSERT_EQ(chmod(spec_.base_disk.c_str(), 0444), 0);
  ASSERT_EQ(chown(spec_.base_disk.c_str(), spec_.uid, 0), 0);
  EXPECT_THAT(Refusal([](VmSpec&) {}), HasSubstr("must be root's"));
  ASSERT_EQ(chown(spec_.base_disk.c_str(), 0, 0), 0);
  EXPECT_THAT(Refusal([](VmSpec& spec) { spec.uid = 65302; }),
              HasSubstr("must belong to uid 65302"));
  ASSERT_EQ(chmod(spec_.rw_disk.c_str(), 0660), 0);
  EXPECT_THAT(Refusal([](VmSpec&) {}), HasSubstr("mode 0600"));
  ASSERT_EQ(chmod(spec_.rw_disk.c_str(), 0600), 0);
  ASSERT_EQ(chmod(spec_.kernel.c_str(), 0600), 0);
  EXPECT_THAT(Refusal([](VmSpec&) {}), HasSubstr("chmod 0444"));
  ASSERT_EQ(chmod(spec_.kernel.c_str(), 0644), 0);
  ASSERT_EQ(chmod(spec_.folder.c_str(), 0755), 0);
  EXPECT_THAT(Refusal([](VmSpec&) {}), HasSubstr("mode 0700"));
}

TEST_F(SpecCheckTest, RefusesLinksAndWhatIsMissing) {
  const std::string link = root_ + "/link";
  ASSERT_EQ(symlink(spec_.rw_disk.c_str(), link.c_str()), 0);
  EXPECT_THAT(Refusal([&](VmSpec& spec) { spec.rw_disk = link; }), HasSubstr("not a regular file"));
  EXPECT_THAT(Refusal([&](VmSpec& spec) { spec.base_disk = link; }), HasSubstr("not a regular"));
  EXPECT_THAT(Refusal([](VmSpec& spec) { spec.kernel = "/no/vmlinux"; }),
              HasSubstr("deploy/guest-kernel"));
}

TEST_F(SpecCheckTest, RefusesSizesAndWordsOutOfRange) {
  EXPECT_THAT(Refusal([](VmSpec& spec) { spec.uid = 0; }), HasSubstr("root's"));
  EXPECT_THAT(Refusal([](VmSpec& spec) { spec.vcpus = 0; }), HasSubstr("vcpus"));
  EXPECT_THAT(Refusal([](VmSpec& spec) { spec.memory_mb = 16; }), HasSubstr("memory_mb"));
  EXPECT_THAT(Refusal([](VmSpec& spec) { spec.console_kib = 48; }), HasSubstr("power of two"));
  for (const char* word : {"a b", "", "x,y", "a\nb", "$(id)", "\"q\""}) {
    EXPECT_THAT(Refusal([&](VmSpec& spec) { spec.kernel_args = {word}; }),
                HasSubstr("kernel_args")) << word;
  }
}

TEST_F(SpecCheckTest, RefusesAFolderWhoseSocketsWouldNotFit) {
  const std::string deep = root_ + "/" + std::string(90, 'd');
  ASSERT_EQ(mkdir(deep.c_str(), 0700), 0);
  EXPECT_THAT(Refusal([&](VmSpec& spec) { spec.folder = deep; }), HasSubstr("shorter state_dir"));
  const std::string odd = root_ + "/a,b";
  ASSERT_EQ(mkdir(odd.c_str(), 0700), 0);
  EXPECT_THAT(Refusal([&](VmSpec& spec) { spec.folder = odd; }), HasSubstr("generated name"));
}

}  // namespace
}  // namespace bunker::agent
