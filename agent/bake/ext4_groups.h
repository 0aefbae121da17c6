// Superblock, group descriptors and bitmaps: libext2fs makes them, the image's writer writes them.
//
// Not thread-safe.
#pragma once

#include <ext2fs/ext2fs.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/bake/block_writer.h"

namespace bunker::agent {

inline constexpr uint32_t kInodeBytes = 256;
inline constexpr uint32_t kFirstFreeInode = 11;

// Everything that the superblock takes from the recipe.
struct Ext4Identity {
  std::string uuid;       // 16 bytes
  std::string hash_seed;  // 16 bytes
};
Ext4Identity IdentityOf(std::string_view recipe_digest);

// How the file is cut: all bitmaps and inode tables lie together behind the data, and the file ends
// with them.
struct Ext4Geometry {
  uint64_t total_blocks = 0;
  uint32_t groups = 0;
  uint32_t blocks_per_group = 0;
  uint32_t inodes_per_group = 0;
  uint64_t block_bitmaps = 0;  // first block of each kind
  uint64_t inode_bitmaps = 0;
  uint64_t inode_tables = 0;
  uint64_t table_blocks = 0;  // of one group
};

// For `inodes` (the reserved ones counted) and everything before block `end` taken. Errors:
// LAYER_UNSUPPORTED where no ext4 file can hold that many.
absl::StatusOr<Ext4Geometry> PlanGeometry(uint64_t end, uint64_t inodes);

class Ext4Groups {
 public:
  // `value_inodes`: some inodes hold values of extended attributes.
  static absl::StatusOr<std::unique_ptr<Ext4Groups>> Create(const Ext4Geometry& geometry,
                                                            const Ext4Identity& identity,
                                                            bool value_inodes, BlockWriter* writer);
  ~Ext4Groups();

  void MarkBlocks(uint64_t block, uint64_t count);
  void MarkInode(uint32_t inode, bool directory);
  // Sets the checksum in a raw inode.
  void SetInodeChecksum(uint32_t inode, char* raw);

  // Writes bitmaps, descriptors and superblock. Call once, last, after the writer was drained.
  absl::Status Write();

 private:
  Ext4Groups(const Ext4Geometry& geometry, BlockWriter* writer)
      : geometry_(geometry), writer_(writer) {}
  absl::Status Initialize(const Ext4Identity& identity, bool value_inodes);
  void CountGroups();

  const Ext4Geometry geometry_;
  BlockWriter* const writer_;
  std::string first_block_;
  ext2_filsys fs_ = nullptr;
  std::vector<uint32_t> used_blocks_;
  std::vector<uint32_t> used_inodes_;
  std::vector<uint32_t> directories_;
  friend struct Ext4Io;
};

}  // namespace bunker::agent
