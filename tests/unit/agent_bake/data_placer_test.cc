// That images on one base share its chunks, and what that may cost.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "agent/bake/data_layout.h"
#include "common/base/files.h"
#include "common/base/rng.h"
#include "tests/unit/agent_bake/baker.h"
#include "tests/unit/agent_bake/tar_builder.h"

namespace bunker::agent {
namespace {

using test::Baker;
using test::TarBuilder;

std::string FileName(int number) {
  return "file" + std::to_string(1000 + number);
}

std::string Base(int files, size_t bytes) {
  SeededRng rng(5);
  TarBuilder tar;
  for (int i = 0; i < files; ++i) tar.File(FileName(i), rng.Bytes(bytes));
  return tar.Finish();
}

// The file's chunks that hold data; the first ones are the descriptors'.
std::vector<std::string> Chunks(const std::vector<std::string>& layers) {
  Baker baker;
  for (const std::string& layer : layers) baker.Layer(layer);
  const auto summary = baker.Run();
  EXPECT_TRUE(summary.ok()) << summary.status();
  const auto bytes = ReadFile(baker.image(), 256 << 20);
  EXPECT_TRUE(bytes.ok());
  std::vector<std::string> chunks;
  for (size_t at = kFirstDataBlock * kBlockBytes; at < bytes->size(); at += kChunkBytes)
    chunks.push_back(bytes->substr(at, kChunkBytes));
  return chunks;
}

size_t Shared(const std::vector<std::string>& base, const std::vector<std::string>& other) {
  const std::set<std::string> there(other.begin(), other.end());
  return static_cast<size_t>(std::count_if(
      base.begin(), base.end(), [&](const std::string& chunk) { return there.count(chunk) > 0; }));
}

TEST(DataPlacer, AHiddenFileCostsItsOwnChunksAlone) {
  const std::string base = Base(100, 300'000);  // 74 blocks each: 57 chunks and a bit
  const auto plain = Chunks({base});
  const auto less = Chunks({base, TarBuilder().File(".wh." + FileName(50), "").Finish()});
  // The hidden file reaches into two chunks, and metadata shares the last one with data.
  EXPECT_GE(Shared(plain, less), 57 - 2);
  EXPECT_LE(less.size(), plain.size() + 1);
}

TEST(DataPlacer, AReplacedFileMovesNothingElse) {
  const std::string base = Base(100, 300'000);
  const auto plain = Chunks({base});
  const auto more = Chunks(
      {base, TarBuilder().File(FileName(20), std::string(700'000, 'x')).File("new", "y").Finish()});
  EXPECT_GE(Shared(plain, more), 57 - 2);
}

TEST(DataPlacer, WholeChunksOfHiddenDataLeaveNoHole) {
  const std::string base = Base(100, 300'000);
  TarBuilder top;
  for (int i = 10; i < 90; ++i) top.File(".wh." + FileName(i), "");
  const auto less = Chunks({base, top.Finish()});
  // 20 files of 74 blocks are 11.6 chunks; the top layer has none of its own.
  EXPECT_LE(less.size(), 14);
  EXPECT_GE(Shared(Chunks({base}), less), 9);
}

TEST(DataPlacer, HolesAreBounded) {
  const std::string base = Base(2000, 30'000);  // 8 blocks each
  TarBuilder top;
  for (int i = 0; i < 2000; i += 2) top.File(".wh." + FileName(i), "");
  // Every second file is hidden: as holes they would double the file.
  const auto less = Chunks({base, top.Finish()});
  const size_t data_chunks = 1000 * 8 / kChunkBlocks;
  EXPECT_LE(less.size(), data_chunks + data_chunks / kBlocksPerSlack + 4);
}

}  // namespace
}  // namespace bunker::agent
