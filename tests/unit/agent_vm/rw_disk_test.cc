#include "agent/vm/rw_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "common/proc/deadline.h"
#include "common/proc/subprocess.h"

namespace bunker::agent {
namespace {

using ::testing::HasSubstr;

class RwDiskTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/bunker-rw-disk.XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    folder_ = folder;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
};

class RwDiskSizeTest : public RwDiskTest, public ::testing::WithParamInterface<uint64_t> {};

TEST_P(RwDiskSizeTest, IsCleanSparseAndTheUsersAlone) {
  const std::string path = folder_ + "/rw";
  const uid_t uid = geteuid() == 0 ? 65301 : geteuid();
  const absl::Duration start = MonotonicTime();
  ASSERT_TRUE(MakeRwDisk(path, GetParam(), uid).ok());
  RecordProperty("took_us", static_cast<int>(absl::ToInt64Microseconds(MonotonicTime() - start)));
  struct stat info{};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(static_cast<uint64_t>(info.st_size), GetParam() << 20);
  EXPECT_EQ(info.st_uid, uid);
  EXPECT_EQ(info.st_mode & 07777, 0600u);
  EXPECT_LT(static_cast<uint64_t>(info.st_blocks) * 512, (3 << 20) + (GetParam() << 20) / 16384)
      << "sparse";
  EXPECT_EQ(info.st_nlink, 1u);
  EXPECT_FALSE(std::filesystem::exists(path + ".new"));
  absl::StatusOr<CommandResult> check = RunCommand({"/sbin/e2fsck", "-fn", path}, {}, nullptr);
  ASSERT_TRUE(check.ok()) << check.status();
  EXPECT_TRUE(check->ok()) << check->stdout_data << check->stderr_data;
}

INSTANTIATE_TEST_SUITE_P(Sizes, RwDiskSizeTest,
                         ::testing::Values(64, 65, 127, 128, 129, 512, 1000, 2048, 10240, 102400));

TEST_F(RwDiskTest, HasAJournalChecksumsAndRoomToGrow) {
  const std::string path = folder_ + "/rw";
  ASSERT_TRUE(MakeRwDisk(path, 64, geteuid()).ok());
  absl::StatusOr<CommandResult> dump = RunCommand({"/sbin/dumpe2fs", path}, {}, nullptr);
  ASSERT_TRUE(dump.ok()) << dump.status();
  for (const char* word : {"has_journal", "extent", "metadata_csum", "resize_inode", "dir_index",
                           "Block size:               4096", "Inode size:\t          256",
                           "Filesystem state:         clean", "Reserved block count:     0"}) {
    EXPECT_THAT(dump->stdout_data, HasSubstr(word));
  }
  EXPECT_THAT(dump->stdout_data, HasSubstr("ITABLE_ZEROED"));
  EXPECT_THAT(dump->stdout_data, ::testing::Not(HasSubstr("Reserved GDT blocks:      0")));
}

TEST_F(RwDiskTest, EachHasItsOwnUuid) {
  std::string uuids[2];
  for (int i = 0; i < 2; ++i) {
    const std::string path = folder_ + "/rw" + std::to_string(i);
    ASSERT_TRUE(MakeRwDisk(path, 64, geteuid()).ok());
    std::ifstream file(path, std::ios::binary);
    file.seekg(1024 + 0x68);
    uuids[i].resize(16);
    file.read(uuids[i].data(), 16);
    EXPECT_EQ(uuids[i][6] & 0xf0, 0x40);
  }
  EXPECT_NE(uuids[0], uuids[1]);
}

TEST_F(RwDiskTest, NeverReplacesADisk) {
  const std::string path = folder_ + "/rw";
  std::ofstream(path) << "precious";
  EXPECT_TRUE(absl::IsAlreadyExists(MakeRwDisk(path, 64, geteuid())));
  std::string content;
  std::ifstream(path) >> content;
  EXPECT_EQ(content, "precious");
}

TEST_F(RwDiskTest, WhatADeadAgentLeftIsNoHindrance) {
  const std::string path = folder_ + "/rw";
  std::ofstream(path + ".new") << "half made";
  EXPECT_TRUE(MakeRwDisk(path, 64, geteuid()).ok());
}

TEST_F(RwDiskTest, RefusesSizesItCantMake) {
  EXPECT_TRUE(absl::IsInvalidArgument(MakeRwDisk(folder_ + "/rw", 63, 1)));
  EXPECT_TRUE(absl::IsInvalidArgument(MakeRwDisk(folder_ + "/rw", 8 * 1024 * 1024 + 1, 1)));
}

}  // namespace
}  // namespace bunker::agent
