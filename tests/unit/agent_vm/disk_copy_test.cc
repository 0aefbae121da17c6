#include "agent/vm/disk_copy.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "common/base/reason.h"
#include "common/base/rng.h"

namespace bunker::agent {
namespace {

constexpr off_t kMiB = 1 << 20;

class DiskCopyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/bunker-disk-copy.XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    folder_ = folder;
    source_ = folder_ + "/source";
    disk_ = UniqueFd(open(source_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_EQ(ftruncate(disk_.get(), 64 * kMiB), 0);
    Write(0, Random(2 * kMiB));
    Write(40 * kMiB, Random(3 * kMiB + 77));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Random(size_t bytes) { return rng_.Bytes(bytes); }
  void Write(off_t at, const std::string& data) {
    ASSERT_EQ(pwrite(disk_.get(), data.data(), data.size(), at),
              static_cast<ssize_t>(data.size()));
  }
  static std::string Content(const std::string& path) {
    std::string content(std::filesystem::file_size(path), '\0');
    std::ifstream in(path, std::ios::binary);
    in.read(content.data(), static_cast<std::streamsize>(content.size()));
    return content;
  }
  static uint64_t Allocated(const std::string& path) {
    struct stat info{};
    EXPECT_EQ(stat(path.c_str(), &info), 0);
    return static_cast<uint64_t>(info.st_blocks) * 512;
  }

  SystemRng rng_;
  std::string folder_;
  std::string source_;
  UniqueFd disk_;
};

TEST_F(DiskCopyTest, HoldsWhatTheSourceHeldWhenItStoodStill) {
  auto copy = DiskCopy::Begin(source_, folder_ + "/copy.part", nullptr);
  ASSERT_TRUE(copy.ok()) << copy.status();
  // Meanwhile: new data in a hole, other data, a change of one byte, a hole in data.
  Write(20 * kMiB, Random(kMiB / 2));
  Write(41 * kMiB, Random(100));
  Write(kMiB + 5, "x");
  ASSERT_EQ(fallocate(disk_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 42 * kMiB, kMiB), 0);
  ASSERT_TRUE(copy->Settle(nullptr).ok());
  const std::string then = Content(source_);
  Write(0, Random(kMiB));  // goes on
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/copy"));
  const auto bytes = copy->Publish(folder_ + "/copy");
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_TRUE(Content(folder_ + "/copy") == then);
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/copy.part"));
  EXPECT_EQ(*bytes, Allocated(folder_ + "/copy"));
  EXPECT_LT(*bytes, uint64_t{8} << 20) << "sparse";
  struct stat info{};
  ASSERT_EQ(stat((folder_ + "/copy").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600u);
  EXPECT_EQ(info.st_uid, geteuid());
}

TEST_F(DiskCopyTest, WhatIsNotPublishedLeavesNothing) {
  const auto refuse = [] { return ReasonError(absl::StatusCode::kCancelled, "CANCELLED", "no"); };
  const auto refused = DiskCopy::Begin(source_, folder_ + "/copy.part", refuse);
  // Where blocks can be shared there is nothing to wait for.
  if (!refused.ok()) {
    EXPECT_EQ(ReasonOf(refused.status()), "CANCELLED");
  }
  {
    auto copy = DiskCopy::Begin(source_, folder_ + "/other.part", nullptr);
    ASSERT_TRUE(copy.ok());
    EXPECT_TRUE(std::filesystem::exists(folder_ + "/other.part"));
    EXPECT_EQ(DiskCopy::Begin(source_, folder_ + "/other.part", nullptr).status().code(),
              absl::StatusCode::kAlreadyExists);
    EXPECT_TRUE(std::filesystem::exists(folder_ + "/other.part")) << "another's";
  }
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/other.part"));
  EXPECT_FALSE(DiskCopy::Begin(folder_ + "/none", folder_ + "/n.part", nullptr).ok());
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/n.part"));
}

TEST_F(DiskCopyTest, ACopyMayBeLargerAndNeverSmaller) {
  ASSERT_TRUE(CopyRwDisk(source_, folder_ + "/larger", 128, geteuid()).ok());
  std::string then = Content(source_);
  then.resize(128 * kMiB);
  EXPECT_TRUE(Content(folder_ + "/larger") == then);
  EXPECT_EQ(CopyRwDisk(source_, folder_ + "/smaller", 32, geteuid()).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/smaller"));
}

}  // namespace
}  // namespace bunker::agent
