#include "agent/bake/ext4_image.h"

#include <ext2fs/ext2fs.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "agent/bake/bake_error.h"
#include "agent/bake/ext4_directory.h"
#include "agent/bake/ext4_extents.h"
#include "agent/bake/ext4_xattr.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr uint32_t kRootInode = EXT2_ROOT_INO;

uint16_t TypeBits(const TreeFile& file) {
  if (file.is_directory) return LINUX_S_IFDIR;
  switch (file.member->type) {
    case MemberType::kSymlink:
      return LINUX_S_IFLNK;
    case MemberType::kCharDevice:
      return LINUX_S_IFCHR;
    case MemberType::kBlockDevice:
      return LINUX_S_IFBLK;
    case MemberType::kFifo:
      return LINUX_S_IFIFO;
    default:
      return LINUX_S_IFREG;
  }
}

uint8_t EntryType(uint16_t bits) {
  switch (bits) {
    case LINUX_S_IFDIR:
      return EXT2_FT_DIR;
    case LINUX_S_IFLNK:
      return EXT2_FT_SYMLINK;
    case LINUX_S_IFCHR:
      return EXT2_FT_CHRDEV;
    case LINUX_S_IFBLK:
      return EXT2_FT_BLKDEV;
    case LINUX_S_IFIFO:
      return EXT2_FT_FIFO;
    default:
      return EXT2_FT_REG_FILE;
  }
}

}  // namespace

Ext4Image::Ext4Image(const RootfsTree* tree, BlockWriter* writer, const Ext4Identity& identity)
    : tree_(tree), writer_(writer), identity_(identity), checksum_(identity.uuid) {}

// Depth first, names in byte order: what is near in the tree is near in the table.
void Ext4Image::NumberInodes() {
  inode_of_.assign(tree_->file_count(), 0);
  inode_of_[tree_->node(kRootNode).file] = kRootInode;
  first_node_.assign(kFirstFreeInode, kNoNode);
  first_node_[kRootInode] = kRootNode;
  std::vector<NodeId> todo = tree_->SortedChildren(kRootNode);
  std::reverse(todo.begin(), todo.end());
  while (!todo.empty()) {
    const NodeId id = todo.back();
    todo.pop_back();
    ++entries_;
    const FileId file = tree_->node(id).file;
    if (inode_of_[file] != 0) continue;
    inode_of_[file] = static_cast<uint32_t>(first_node_.size());
    first_node_.push_back(id);
    if (!tree_->file(file).is_directory) continue;
    const std::vector<NodeId> children = tree_->SortedChildren(id);
    todo.insert(todo.end(), children.rbegin(), children.rend());
  }
}

absl::StatusOr<uint64_t> Ext4Image::AppendBlocks(std::string_view bytes) {
  const uint64_t block = writer_->position();
  RETURN_IF_ERROR(writer_->Append(bytes));
  RETURN_IF_ERROR(writer_->PadBlock());
  return block;
}

absl::StatusOr<std::string> Ext4Image::ExtentRoot(const std::vector<DataRun>& runs, uint32_t inode,
                                                  InodeFields* fields) {
  for (const DataRun& run : runs) fields->blocks += run.blocks;
  fields->flags |= EXT4_EXTENTS_FL;
  return EncodeExtents(
      runs, inode, checksum_, [this](const std::string& block) { return AppendBlocks(block); },
      &fields->blocks);
}

absl::StatusOr<std::string> Ext4Image::DirectoryBlock(NodeId node, uint32_t inode,
                                                      InodeFields* fields) {
  std::vector<DirectoryEntry> entries;
  fields->links = 2;
  for (NodeId child : tree_->SortedChildren(node)) {
    const TreeNode& named = tree_->node(child);
    const TreeFile& file = tree_->file(named.file);
    if (file.is_directory) ++fields->links;
    entries.push_back(DirectoryEntry{named.name, inode_of_[named.file], EntryType(TypeBits(file))});
  }
  const uint32_t parent = inode_of_[tree_->node(tree_->node(node).parent).file];
  ASSIGN_OR_RETURN(const DirectoryBlocks blocks, EncodeDirectory(std::move(entries), inode, parent,
                                                                 identity_.hash_seed, checksum_));
  if (blocks.indexed) fields->flags |= EXT2_INDEX_FL;
  fields->size = blocks.bytes.size();
  ASSIGN_OR_RETURN(const uint64_t at, AppendBlocks(blocks.bytes));
  return ExtentRoot({DataRun{0, at, blocks.bytes.size() / kBlockBytes}}, inode, fields);
}

absl::StatusOr<std::string> Ext4Image::RegularBlock(const Member& member, uint32_t inode,
                                                    InodeFields* fields) {
  fields->size = member.size;
  return ExtentRoot(member.runs, inode, fields);
}

absl::StatusOr<std::string> Ext4Image::SymlinkBlock(const Member& member, uint32_t inode,
                                                    InodeFields* fields) {
  fields->size = member.link.size();
  if (member.link.size() < kInodeBlockBytes) return member.link;
  ASSIGN_OR_RETURN(const uint64_t at, AppendBlocks(member.link));
  return ExtentRoot({DataRun{0, at, 1}}, inode, fields);
}

// Returns what goes into the inode.
absl::StatusOr<std::string> Ext4Image::AddXattrs(const Member& member, InodeFields* fields) {
  if (member.xattrs.empty()) return std::string();
  const auto put_value = [&](std::string_view value, uint32_t hash) {
    fields->blocks += BlocksFor(value.size());  // charged to the owner, too
    return AddValueInode(value, hash);
  };
  ASSIGN_OR_RETURN(EncodedXattrs encoded, EncodeXattrs(member.xattrs, checksum_, put_value));
  if (!encoded.block.empty()) {
    // The checksum covers the block's own number where an inode's would stand.
    const uint64_t at = writer_->position();
    const uint32_t crc = checksum_.OfBlock(at, encoded.block);
    std::memcpy(encoded.block.data() + offsetof(ext2_ext_attr_header, h_checksum), &crc,
                sizeof(crc));
    RETURN_IF_ERROR(AppendBlocks(encoded.block).status());
    fields->xattr_block = at;
    ++fields->blocks;
  }
  return std::move(encoded.inode);
}

absl::StatusOr<uint32_t> Ext4Image::AddValueInode(std::string_view value, uint32_t hash) {
  const auto inode = static_cast<uint32_t>(inode_count() + 1);
  InodeFields fields;
  fields.type = LINUX_S_IFREG;
  fields.metadata.mode = 0600;
  fields.size = value.size();
  fields.flags = EXT4_EA_INODE_FL;
  fields.value_hash = hash;
  ASSIGN_OR_RETURN(const uint64_t at, AppendBlocks(value));
  ASSIGN_OR_RETURN(const std::string block,
                   ExtentRoot({DataRun{0, at, BlocksFor(value.size())}}, inode, &fields));
  fields.i_block = block;
  inodes_ += EncodeInode(fields);
  return inode;
}

absl::Status Ext4Image::WriteFile(FileId id, NodeId node, uint32_t inode) {
  const TreeFile& file = tree_->file(id);
  static const Member kUndescribed;
  const Member& member = file.member ? *file.member : kUndescribed;
  InodeFields fields;
  fields.type = TypeBits(file);
  fields.metadata = member.metadata;
  fields.links = file.links;
  std::string block;
  if (file.is_directory) {
    ASSIGN_OR_RETURN(block, DirectoryBlock(node, inode, &fields));
  } else if (fields.type == LINUX_S_IFREG) {
    ASSIGN_OR_RETURN(block, RegularBlock(member, inode, &fields));
  } else if (fields.type == LINUX_S_IFLNK) {
    ASSIGN_OR_RETURN(block, SymlinkBlock(member, inode, &fields));
    fields.metadata.mode = 0777;
  } else if (fields.type != LINUX_S_IFIFO) {
    block = EncodeDevice(member.device_major, member.device_minor);
  }
  ASSIGN_OR_RETURN(const std::string xattrs, AddXattrs(member, &fields));
  fields.i_block = block;
  fields.xattrs = xattrs;
  inodes_.replace((inode - 1) * size_t{kInodeBytes}, kInodeBytes, EncodeInode(fields));
  return absl::OkStatus();
}

absl::Status Ext4Image::WriteInodes() {
  inodes_.assign((first_node_.size() - 1) * kInodeBytes, '\0');
  for (uint32_t inode = 1; inode < first_node_.size(); ++inode) {
    const NodeId node = first_node_[inode];
    if (node == kNoNode) continue;
    RETURN_IF_ERROR(
        Annotate(WriteFile(tree_->node(node).file, node, inode), Printable(tree_->Text(node))));
  }
  return absl::OkStatus();
}

void Ext4Image::MarkData(Ext4Groups* groups) const {
  for (uint32_t inode = kFirstFreeInode; inode < first_node_.size(); ++inode) {
    const TreeFile& file = tree_->file_of(first_node_[inode]);
    if (file.is_directory) continue;
    for (const DataRun& run : file.member->runs) groups->MarkBlocks(run.physical, run.blocks);
  }
  groups->MarkBlocks(metadata_start_, metadata_end_ - metadata_start_);
}

absl::Status Ext4Image::WriteTables(const Ext4Geometry& geometry, Ext4Groups* groups) {
  for (uint32_t inode = 1; inode <= inode_count(); ++inode) {
    const NodeId node = inode < first_node_.size() ? first_node_[inode] : kNoNode;
    groups->SetInodeChecksum(inode, inodes_.data() + (inode - 1) * size_t{kInodeBytes});
    groups->MarkInode(inode, node != kNoNode && tree_->file_of(node).is_directory);
  }
  // The groups' tables follow each other, so the inodes do, too.
  writer_->SkipTo(geometry.inode_tables);
  RETURN_IF_ERROR(writer_->Append(inodes_));
  return writer_->PadBlock();
}

absl::StatusOr<uint64_t> Ext4Image::Write() {
  NumberInodes();
  metadata_start_ = std::max(writer_->position(), kFirstDataBlock);
  writer_->SkipTo(metadata_start_);
  RETURN_IF_ERROR(WriteInodes());
  metadata_end_ = writer_->position();
  ASSIGN_OR_RETURN(const Ext4Geometry geometry, PlanGeometry(metadata_end_, inode_count()));
  ASSIGN_OR_RETURN(const std::unique_ptr<Ext4Groups> groups,
                   Ext4Groups::Create(geometry, identity_, has_value_inodes(), writer_));
  MarkData(groups.get());
  RETURN_IF_ERROR(WriteTables(geometry, groups.get()));
  RETURN_IF_ERROR(writer_->Drain());
  RETURN_IF_ERROR(groups->Write());
  return geometry.total_blocks;
}

}  // namespace bunker::agent
