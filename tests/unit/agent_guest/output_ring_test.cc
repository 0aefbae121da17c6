#include "agent/guest/output_ring.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

namespace bunker::guest {
namespace {

// All from `offset` on, and of which output each byte is.
std::pair<std::string, std::string> ReadFrom(const OutputRing& ring, uint64_t offset,
                                             size_t max_bytes) {
  std::string bytes, outputs;
  while (offset < ring.end()) {
    const OutputRing::Piece piece = ring.At(offset, max_bytes);
    EXPECT_GT(piece.data.size(), 0u);
    EXPECT_LE(piece.data.size(), max_bytes);
    bytes += piece.data;
    outputs.append(piece.data.size(), piece.is_stderr ? 'e' : 'o');
    offset += piece.data.size();
  }
  return {bytes, outputs};
}

TEST(OutputRingTest, KeepsTheOrderOfBothOutputs) {
  OutputRing ring;
  ring.Append(false, "one");
  ring.Append(true, "two");
  ring.Append(true, "three");
  ring.Append(false, "");
  ring.Append(false, "four");
  EXPECT_EQ(ring.begin(), 0u);
  EXPECT_EQ(ring.end(), 15u);
  EXPECT_EQ(ReadFrom(ring, 0, 1000), std::make_pair(std::string("onetwothreefour"),
                                                    std::string("oooeeeeeeeeoooo")));
  EXPECT_EQ(ReadFrom(ring, 4, 2).first, "wothreefour");
}

TEST(OutputRingTest, ForgetsTheOldestAndSaysSo) {
  OutputRing ring;
  const std::string block(1000, 'x');
  for (int i = 0; i < 400; ++i) ring.Append(i % 2 == 1, block);
  EXPECT_EQ(ring.end(), 400'000u);
  EXPECT_EQ(ring.begin(), 400'000 - OutputRing::kBytes);
  EXPECT_EQ(ReadFrom(ring, ring.begin(), 32768).first.size(), OutputRing::kBytes);
}

TEST(OutputRingTest, ManySmallChangesAreBoundedToo) {
  OutputRing ring;
  for (size_t i = 0; i < 3 * OutputRing::kMaxRuns; ++i) ring.Append(i % 2 == 1, "x");
  EXPECT_EQ(ring.end() - ring.begin(), OutputRing::kMaxRuns);
  EXPECT_EQ(ReadFrom(ring, ring.begin(), 10).first.size(), OutputRing::kMaxRuns);
}

TEST(OutputRingTest, IsAsALongStringWould) {
  std::mt19937 random(7);
  for (int round = 0; round < 20; ++round) {
    OutputRing ring;
    std::string bytes, outputs;
    for (int i = 0; i < 300; ++i) {
      const bool is_stderr = random() % 3 == 0;
      std::string data(random() % 5000, static_cast<char>('a' + i % 26));
      ring.Append(is_stderr, data);
      bytes += data;
      outputs.append(data.size(), is_stderr ? 'e' : 'o');
      ASSERT_EQ(ring.end(), bytes.size());
      const uint64_t from = ring.begin() + random() % (ring.end() - ring.begin() + 1);
      const auto [got, of] = ReadFrom(ring, from, 1 + random() % 32768);
      ASSERT_EQ(got, bytes.substr(from));
      ASSERT_EQ(of, outputs.substr(from));
    }
  }
}

}  // namespace
}  // namespace bunker::guest
