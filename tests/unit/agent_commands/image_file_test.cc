#include "agent/commands/image_file.h"

#include <ext2fs/ext2fs.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "agent/commands/verity_file.h"
#include "common/base/files.h"
#include "common/base/reason.h"
#include "common/base/rng.h"
#include "common/base/unique_fd.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/agent_bake/baker.h"
#include "tests/unit/agent_bake/tar_builder.h"

namespace bunker::agent {
namespace {

using test::Baker;
using test::TarBuilder;

constexpr size_t kSuperblock = 1024;
constexpr size_t kChecksumAt = kSuperblock + 1020;

void SetSuperblockChecksum(std::string* image) {
  const uint32_t checksum = ext2fs_crc32c_le(
      ~0u, reinterpret_cast<const unsigned char*>(image->data()) + kSuperblock, 1020);
  std::memcpy(image->data() + kChecksumAt, &checksum, sizeof checksum);
}

class ImageFileTest : public testing::Test {
 protected:
  void SetUp() override {
    TarBuilder tar;
    tar.Dir("usr").File("usr/a", std::string(100'000, 'a')).File("usr/empty", "");
    tar.Symlink("usr/link", "a").Link("usr/hard", "usr/a");
    tar.Add({.name = "null", .type = '3', .major = 1, .minor = 3});
    baker_.Layer(tar.Finish());
    const auto summary = baker_.Run();
    ASSERT_TRUE(summary.ok()) << summary.status();
    summary_ = *summary;
    const auto bytes = ReadFile(baker_.image(), 64 << 20);
    ASSERT_TRUE(bytes.ok());
    bytes_ = *bytes;
  }

  static absl::StatusOr<ImageFileFacts> Read(const std::string& bytes) {
    const UniqueFd file(memfd_create("image", MFD_CLOEXEC));
    EXPECT_TRUE(WriteAll(file.get(), bytes).ok());
    return ReadImageFile(file.get());
  }

  Baker baker_;
  BakeSummary summary_;
  std::string bytes_;
};

TEST_F(ImageFileTest, TellsWhatIsInIt) {
  const auto fd = OpenImageFile(baker_.image());
  ASSERT_TRUE(fd.ok());
  const UniqueFd file(*fd);
  const auto facts = ReadImageFile(file.get());
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_EQ(facts->label, kImageLabelPrefix + std::to_string(kBakeWriterVersion));
  EXPECT_EQ(facts->entries, summary_.entries);
  EXPECT_EQ(facts->directories, 1);
  EXPECT_EQ(facts->regular_files, 2);
  EXPECT_EQ(facts->symlinks, 1);
  EXPECT_EQ(facts->other_files, 1);
  EXPECT_EQ(facts->content_bytes, 100'000);
  EXPECT_EQ(facts->apparent_bytes, summary_.apparent_bytes);
  const auto verity = CheckVerity(file.get(), facts->apparent_bytes, -1);
  ASSERT_TRUE(verity.ok());
  EXPECT_EQ(verity->digest, summary_.rootfs_digest);
  EXPECT_FALSE(verity->tree_checked);
}

TEST_F(ImageFileTest, KnowsATreeThatIsNotItsOwn) {
  const UniqueFd file(open(baker_.image().c_str(), O_RDONLY | O_CLOEXEC));
  const UniqueFd tree(open(baker_.tree().c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(file && tree);
  auto verity = CheckVerity(file.get(), bytes_.size(), tree.get());
  ASSERT_TRUE(verity.ok());
  EXPECT_TRUE(verity->tree_checked);
  EXPECT_TRUE(verity->tree_matches);
  char byte = 0;
  ASSERT_EQ(pread(tree.get(), &byte, 1, 40), 1);
  byte = static_cast<char>(byte ^ 1);
  ASSERT_EQ(pwrite(tree.get(), &byte, 1, 40), 1);
  verity = CheckVerity(file.get(), bytes_.size(), tree.get());
  ASSERT_TRUE(verity.ok());
  EXPECT_FALSE(verity->tree_matches);
}

TEST_F(ImageFileTest, RefusesWhatIsNotOurs) {
  std::string foreign = bytes_;
  foreign[kSuperblock + 0x78] = 'x';  // the label
  for (const std::string& bytes :
       {std::string(), std::string("no image"), std::string(1 << 20, '\0'), foreign}) {
    const auto facts = Read(bytes);
    ASSERT_FALSE(facts.ok());
    EXPECT_EQ(ReasonOf(facts.status()), "LAYER_CORRUPT");
    EXPECT_NE(facts.status().message().find("not an image that bunker-agent baked"),
              std::string::npos);
  }
}

TEST_F(ImageFileTest, RefusesWhatIsCutOrGrown) {
  for (const size_t size : {bytes_.size() - 1, bytes_.size() / 2, bytes_.size() + 4096}) {
    std::string bytes = bytes_;
    bytes.resize(size);
    EXPECT_FALSE(Read(bytes).ok()) << size;
  }
}

// With a right checksum over wrong numbers, as only an attacker writes them.
TEST_F(ImageFileTest, SurvivesEveryWrongNumber) {
  SeededRng rng(7);
  int refused = 0;
  for (int round = 0; round < 300; ++round) {
    std::string bytes = bytes_;
    const bool descriptor = round % 3 == 0;
    const size_t at = descriptor ? 4096 + rng.Below(64) : kSuperblock + rng.Below(1020);
    if (!descriptor && at >= kSuperblock + 0x78 && at < kSuperblock + 0x88) continue;  // the label
    bytes[at] = static_cast<char>(rng.Below(256));
    SetSuperblockChecksum(&bytes);
    if (!Read(bytes).ok()) ++refused;
  }
  EXPECT_GT(refused, 15);
}

TEST(ImageFile, OpensOnlyFiles) {
  const bunker::test::TempDir folder;
  EXPECT_EQ(ReasonOf(OpenImageFile(folder.File("")).status()), "SOURCE_NOT_READABLE");
  EXPECT_EQ(ReasonOf(OpenImageFile("/dev/null").status()), "SOURCE_NOT_READABLE");
  EXPECT_EQ(ReasonOf(OpenImageFile(folder.File("absent")).status()), "SOURCE_NOT_READABLE");
}

}  // namespace
}  // namespace bunker::agent
