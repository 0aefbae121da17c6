// Everything of the image but its file data: inodes, directories, extent trees, attributes, tables.
// Built in bulk once the tree is known, written behind the data.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/bake/block_writer.h"
#include "agent/bake/ext4_checksum.h"
#include "agent/bake/ext4_groups.h"
#include "agent/bake/ext4_inode.h"
#include "agent/bake/rootfs_tree.h"

namespace bunker::agent {

class Ext4Image {
 public:
  // Both must outlive the image. `writer` stands behind the data.
  Ext4Image(const RootfsTree* tree, BlockWriter* writer, const Ext4Identity& identity);

  // Writes all metadata; the writer is drained afterwards. Returns the file's size in blocks, which
  // is right even where the writer is over its cap.
  absl::StatusOr<uint64_t> Write();

  // After Write(): the paths in the image, the root not counted.
  uint64_t entries() const { return entries_; }

 private:
  void NumberInodes();
  absl::Status WriteInodes();
  absl::Status WriteFile(FileId file, NodeId node, uint32_t inode);
  absl::StatusOr<std::string> DirectoryBlock(NodeId node, uint32_t inode, InodeFields* fields);
  absl::StatusOr<std::string> RegularBlock(const Member& member, uint32_t inode,
                                           InodeFields* fields);
  absl::StatusOr<std::string> SymlinkBlock(const Member& member, uint32_t inode,
                                           InodeFields* fields);
  absl::StatusOr<std::string> ExtentRoot(const std::vector<DataRun>& runs, uint32_t inode,
                                         InodeFields* fields);
  absl::StatusOr<std::string> AddXattrs(const Member& member, InodeFields* fields);
  absl::StatusOr<uint32_t> AddValueInode(std::string_view value, uint32_t hash);
  absl::StatusOr<uint64_t> AppendBlocks(std::string_view bytes);
  absl::Status WriteTables(const Ext4Geometry& geometry, Ext4Groups* groups);
  void MarkData(Ext4Groups* groups) const;
  uint64_t inode_count() const { return inodes_.size() / kInodeBytes; }
  bool has_value_inodes() const { return inode_count() >= first_node_.size(); }

  const RootfsTree* const tree_;
  BlockWriter* const writer_;
  const Ext4Identity identity_;
  const Ext4Checksum checksum_;
  std::vector<uint32_t> inode_of_;  // by FileId; 0: not in the image
  std::vector<NodeId> first_node_;  // by inode: the name that came first; numbers have no gaps
  // Raw, from inode 1 on. Inodes of attributes' values come last: an image without any is the same
  // as if there were no such thing.
  std::string inodes_;
  uint64_t metadata_start_ = 0;
  uint64_t metadata_end_ = 0;
  uint64_t entries_ = 0;
};

}  // namespace bunker::agent
