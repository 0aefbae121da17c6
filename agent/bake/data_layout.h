// The constants that decide where bytes lie in the file. All of them are part of the recipe.
#pragma once

#include <cstdint>

namespace bunker::agent {

inline constexpr uint32_t kBlockBytes = 4096;
// One fs-verity tree block covers this much; pieces of this size are what workers can share.
inline constexpr uint32_t kChunkBytes = 128 * kBlockBytes;
inline constexpr uint32_t kChunkBlocks = kChunkBytes / kBlockBytes;
// Of so many blocks of data, one may be spent on a hole that keeps what follows in place: 4 %.
inline constexpr uint64_t kBlocksPerSlack = 25;
// Room for the superblock and 128 descriptor blocks (enough for 1 TiB), rounded up to a chunk.
// Always taken, so that neither the cap nor the size moves the data.
inline constexpr uint32_t kDescriptorBlocks = 128;
inline constexpr uint64_t kFirstDataBlock = 2 * kChunkBlocks;
static_assert(kFirstDataBlock > kDescriptorBlocks);

// Blocks [physical, physical + blocks) hold the file's blocks from `logical` on.
struct DataRun {
  uint64_t logical = 0;
  uint64_t physical = 0;
  uint64_t blocks = 0;
};

inline constexpr uint64_t BlocksFor(uint64_t bytes) {
  return (bytes + kBlockBytes - 1) / kBlockBytes;
}

}  // namespace bunker::agent
