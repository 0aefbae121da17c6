// The bake's parts by themselves: codecs fed in every way, the verity tree against its tool, times,
// geometry.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <random>

#include "agent/bake/data_layout.h"
#include "agent/bake/decompressor.h"
#include "agent/bake/ext4_groups.h"
#include "agent/bake/path_table.h"
#include "agent/bake/tar_reader.h"
#include "agent/bake/verity_tree.h"
#include "tests/unit/agent_bake/baker.h"
#include "tests/unit/agent_bake/tar_builder.h"

namespace bunker::agent::test {
namespace {

absl::StatusOr<std::string> Decode(Compression compression, const std::string& blob, size_t in_step,
                                   size_t out_step) {
  const auto codec = Decompressor::Create(compression);
  std::string out;
  std::string buffer(out_step, '\0');
  for (size_t at = 0; at < blob.size(); at += in_step) {
    std::string_view in = std::string_view(blob).substr(at, in_step);
    size_t made = 0;
    do {
      const auto step = codec->Step(&in, buffer.data(), out_step);
      if (!step.ok()) return step.status();
      made = *step;
      out.append(buffer, 0, made);
    } while (!in.empty() || made == out_step);
  }
  if (absl::Status status = codec->Finish(); !status.ok()) return status;
  return out;
}

TEST(Decompressor, EveryStepSize) {
  std::string data;
  std::mt19937 random(1);
  while (data.size() < 70'000) data += std::string(random() % 50, static_cast<char>(random()));
  for (Compression compression : {Compression::kNone, Compression::kGzip, Compression::kZstd}) {
    const std::string half = data.substr(0, data.size() / 2);
    const std::string rest = data.substr(half.size());
    const auto pack = [&](const std::string& text) {
      return compression == Compression::kGzip   ? Gzip(text)
             : compression == Compression::kZstd ? Zstd(text)
                                                 : text;
    };
    const std::string blob = pack(half) + pack(rest);
    for (size_t in_step : {1, 2, 3, 7, 100, 4096, 1 << 20}) {
      for (size_t out_step : {1, 3, 1000, 1 << 20}) {
        const auto decoded = Decode(compression, blob, in_step, out_step);
        ASSERT_TRUE(decoded.ok()) << decoded.status() << " " << in_step << " " << out_step;
        ASSERT_EQ(*decoded, data) << in_step << " " << out_step;
      }
    }
  }
}

TEST(Decompressor, EveryTruncationIsSeen) {
  const std::string data(3000, 'd');
  for (Compression compression : {Compression::kGzip, Compression::kZstd}) {
    const std::string blob = compression == Compression::kGzip ? Gzip(data) : Zstd(data);
    for (size_t length = 0; length < blob.size(); ++length) {
      EXPECT_FALSE(Decode(compression, blob.substr(0, length), 1 << 20, 1 << 20).ok()) << length;
    }
  }
}

TEST(VerityTree, AgreesWithTheTool) {
  bunker::test::TempDir folder;
  std::mt19937 random(2);
  for (uint64_t blocks : {1, 2, 127, 128, 129, 256, 1000, 16384, 16385, 20000}) {
    const std::string path = folder.File("f");
    std::ofstream(path, std::ios::binary | std::ios::trunc);
    std::filesystem::resize_file(path, blocks * kBlockBytes);
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    VerityTree tree;
    for (int i = 0; i < 20; ++i) {
      const uint64_t block = random() % blocks;
      const std::string data(kBlockBytes, static_cast<char>(random()));
      file.seekp(static_cast<std::streamoff>(block * kBlockBytes));
      file << data;
      ASSERT_TRUE(tree.Set(block, data).ok());
      if (i % 5 == 0) {  // written, then punched out again
        file.seekp(static_cast<std::streamoff>(block * kBlockBytes));
        file << std::string(kBlockBytes, '\0');
        ASSERT_TRUE(tree.SetHole(block, 1).ok());
      }
    }
    file.close();
    const auto digest = tree.Finish(blocks * kBlockBytes);
    ASSERT_TRUE(digest.ok()) << digest.status();
    EXPECT_EQ(*digest + "\n", "fsverity-sha256:" + RunCommand("fsverity digest --compact " + path))
        << blocks;
  }
}

// More pages than are held: those that went to the file come back when they change, move to their
// place in the end, and nothing shows that they were gone.
TEST(VerityTree, SpillsToItsFile) {
  bunker::test::TempDir folder;
  const std::string path = folder.File("f");
  constexpr uint64_t kPages = VerityTree::kMaxHeldPages + 500;
  constexpr uint64_t kBlocks = kPages * 128 - 77;
  std::ofstream(path, std::ios::binary | std::ios::trunc);
  std::filesystem::resize_file(path, kBlocks * kBlockBytes);
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  const std::string tree_path = folder.File("tree");
  const UniqueFd fd(open(tree_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  VerityTree tree(fd.get(), kBlocks * kBlockBytes * 3);  // the cap is far from being reached
  const auto write = [&](uint64_t block, char byte) {
    const std::string data(kBlockBytes, byte);
    file.seekp(static_cast<std::streamoff>(block * kBlockBytes));
    file << data;
    if (byte == 0) return tree.SetHole(block, 1);
    return tree.Set(block, data);
  };
  for (uint64_t page = 0; page < kPages; ++page) {
    ASSERT_TRUE(write(page * 128 + page % 50, static_cast<char>(1 + page % 100)).ok());
  }
  struct stat status {};
  ASSERT_EQ(fstat(fd.get(), &status), 0);
  EXPECT_GT(status.st_size, 0) << "nothing was spilled";
  ASSERT_TRUE(write(5 * 128 + 5, 0).ok());      // its only block of data
  ASSERT_TRUE(write(7 * 128 + 100, 'x').ok());  // one more
  ASSERT_TRUE(tree.SetHole(9 * 128, 128).ok());
  file.seekp(static_cast<std::streamoff>(9 * 128 * kBlockBytes));
  file << std::string(128 * kBlockBytes, '\0');
  file.close();
  const auto digest = tree.Finish(kBlocks * kBlockBytes);
  ASSERT_TRUE(digest.ok()) << digest.status();
  EXPECT_EQ(*digest + "\n", "fsverity-sha256:" + RunCommand("fsverity digest --compact " + path));
  ASSERT_TRUE(tree.WriteTo(fd.get()).ok());
  RunCommand("fsverity digest --out-merkle-tree=" + tree_path + ".tool " + path);
  EXPECT_EQ(RunCommand("cmp " + tree_path + " " + tree_path + ".tool && echo same"), "same\n");
}

TEST(PaxTime, RoundsTowardsThePast) {
  const std::tuple<const char*, int64_t, uint32_t> cases[] = {{"0", 0, 0},
                                                              {"1.5", 1, 500'000'000},
                                                              {"-1", -1, 0},
                                                              {"-1.5", -2, 500'000'000},
                                                              {"-0.25", -1, 750'000'000},
                                                              {"5.1234567899", 5, 123'456'789},
                                                              {"-0.000000001", -1, 999'999'999}};
  for (const auto& [text, seconds, nanoseconds] : cases) {
    int64_t got_seconds = 0;
    uint32_t got_nanoseconds = 0;
    EXPECT_TRUE(ParsePaxTime(text, &got_seconds, &got_nanoseconds)) << text;
    EXPECT_EQ(got_seconds, seconds) << text;
    EXPECT_EQ(got_nanoseconds, nanoseconds) << text;
  }
  int64_t seconds = 0;
  uint32_t nanoseconds = 0;
  for (const char* text : {"", "-", "x", "1x", "1.x", "99999999999999999999", "--1", " 1"}) {
    EXPECT_FALSE(ParsePaxTime(text, &seconds, &nanoseconds)) << text;
  }
}

TEST(CleanComponents, StaysInside) {
  const auto clean = [](std::string_view path) {
    std::string text;
    for (std::string_view part : CleanComponents(path)) text.append("/").append(part);
    return text;
  };
  EXPECT_EQ(clean("a//b/./c/"), "/a/b/c");
  EXPECT_EQ(clean("/../../a/../b"), "/b");
  EXPECT_EQ(clean(".."), "");
  EXPECT_EQ(clean("a/b/../../.."), "");
}

TEST(PlanGeometry, HoldsWhatItIsAskedToHold) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 20'000; ++i) {
    const uint64_t end = kFirstDataBlock + random() % (1ull << (random() % 27 + 1));
    const uint64_t inodes = 11 + random() % (1ull << (random() % 20 + 1));
    const auto plan = PlanGeometry(end, inodes);
    ASSERT_TRUE(plan.ok()) << plan.status() << end << " " << inodes;
    EXPECT_GE(uint64_t{plan->inodes_per_group} * plan->groups, inodes);
    EXPECT_LE(plan->inodes_per_group, kBlockBytes * 8);
    EXPECT_GE(plan->total_blocks, plan->inode_tables + plan->groups * plan->table_blocks);
    EXPECT_GT(plan->total_blocks, uint64_t{plan->groups - 1} * plan->blocks_per_group);
    EXPECT_LE(plan->total_blocks, uint64_t{plan->groups} * plan->blocks_per_group);
    const uint64_t rest = plan->total_blocks % plan->blocks_per_group;
    EXPECT_TRUE(rest == 0 || rest >= plan->table_blocks + 52);
  }
}

TEST(PlanGeometry, ManyEmptyFilesNeedSmallerGroups) {
  const auto plan = PlanGeometry(kFirstDataBlock + 5000, 1'000'000);
  ASSERT_TRUE(plan.ok());
  EXPECT_LT(plan->total_blocks, 80'000u);
}

}  // namespace
}  // namespace bunker::agent::test
