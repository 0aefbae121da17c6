#include "agent/bake/ext4_groups.h"

#include <algorithm>
#include <cstring>

#include "agent/bake/bake_error.h"
#include "agent/bake/bake_types.h"
#include "agent/bake/data_layout.h"
#include "common/base/hex.h"
#include "common/base/log.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"

namespace bunker::agent {

// libext2fs writes through one of these. It opens by name; the name is a pointer to the groups.
struct Ext4Io {
  static errcode_t Open(const char* name, int flags, io_channel* channel);
  static errcode_t Close(io_channel channel);
  static errcode_t SetBlockSize(io_channel channel, int bytes) {
    channel->block_size = bytes;
    return 0;
  }
  static errcode_t Read64(io_channel, unsigned long long, int, void*) { return EIO; }
  static errcode_t Read(io_channel, unsigned long, int, void*) { return EIO; }
  static errcode_t Write(io_channel channel, unsigned long block, int count, const void* data) {
    return Write64(channel, block, count, data);
  }
  static errcode_t Write64(io_channel channel, unsigned long long block, int count,
                           const void* data);
  static errcode_t Flush(io_channel) { return 0; }
  static io_manager Manager();
  static thread_local Ext4Groups* current;
};

thread_local Ext4Groups* Ext4Io::current = nullptr;

namespace {

// No clock: a constant of the writer's version (2020-01-01). Not zero, which the library takes for
// "now", and not in any reader's future.
constexpr uint32_t kTimestamp = 1'577'836'800;

absl::Status LibraryError(std::string_view what, errcode_t code) {
  return BakeInternal(absl::StrCat(ToAbsl(what), ": libext2fs error ", code));
}

}  // namespace

errcode_t Ext4Io::Open(const char* name, int, io_channel* channel) {
  auto* made = new struct_io_channel();
  made->magic = EXT2_ET_MAGIC_IO_CHANNEL;
  made->manager = Manager();
  made->name = strdup(name);
  made->block_size = 1024;
  made->refcount = 1;
  made->private_data = current;
  *channel = made;
  return 0;
}

errcode_t Ext4Io::Close(io_channel channel) {
  if (--channel->refcount > 0) return 0;
  free(channel->name);
  delete channel;
  return 0;
}

errcode_t Ext4Io::Write64(io_channel channel, unsigned long long block, int count,
                          const void* data) {
  auto* groups = static_cast<Ext4Groups*>(channel->private_data);
  const uint64_t offset = block * static_cast<uint64_t>(channel->block_size);
  const size_t bytes = count < 0 ? static_cast<size_t>(-static_cast<int64_t>(count))
                                 : static_cast<size_t>(count) * channel->block_size;
  const std::string_view view(static_cast<const char*>(data), bytes);
  if (offset < kBlockBytes) {  // the superblock, alone in the first block
    if (offset + bytes > kBlockBytes) return EINVAL;
    std::memcpy(groups->first_block_.data() + offset, data, bytes);
    return 0;
  }
  if (offset % kBlockBytes != 0 || bytes % kBlockBytes != 0) return EINVAL;
  return groups->writer_->WriteAt(offset / kBlockBytes, view).ok() ? 0 : EIO;
}

io_manager Ext4Io::Manager() {
  static struct_io_manager manager = [] {
    struct_io_manager made = {};
    made.magic = EXT2_ET_MAGIC_IO_MANAGER;
    made.name = "bunker";
    made.open = &Ext4Io::Open;
    made.close = &Ext4Io::Close;
    made.set_blksize = &Ext4Io::SetBlockSize;
    made.read_blk = &Ext4Io::Read;
    made.write_blk = &Ext4Io::Write;
    made.flush = &Ext4Io::Flush;
    made.read_blk64 = &Ext4Io::Read64;
    made.write_blk64 = &Ext4Io::Write64;
    return made;
  }();
  return &manager;
}

Ext4Identity IdentityOf(std::string_view recipe_digest) {
  const auto derive = [&](std::string_view purpose) {
    std::string raw;
    BUNKER_CHECK(
        HexDecode(Sha256Hex(absl::StrCat(ToAbsl(purpose), " of ", ToAbsl(recipe_digest))), &raw));
    raw.resize(16);
    return raw;
  };
  Ext4Identity identity{derive("ext4 uuid"), derive("ext4 hash seed")};
  // A well-formed UUID: version 8 (made as one likes), RFC variant.
  identity.uuid[6] = static_cast<char>((identity.uuid[6] & 0x0f) | 0x80);
  identity.uuid[8] = static_cast<char>((identity.uuid[8] & 0x3f) | 0x80);
  return identity;
}

absl::StatusOr<Ext4Geometry> PlanGeometry(uint64_t end, uint64_t inodes) {
  constexpr uint32_t kInodesPerBlock = kBlockBytes / kInodeBytes;
  for (uint32_t per_group = 32768; per_group >= 1024; per_group /= 2) {
    Ext4Geometry plan;
    plan.blocks_per_group = per_group;
    uint64_t groups = 1;
    for (;;) {
      plan.table_blocks = ((inodes + groups - 1) / groups + kInodesPerBlock - 1) / kInodesPerBlock;
      plan.total_blocks = end + groups * (2 + plan.table_blocks);
      // libext2fs cuts off a last group that is too small for its own tables. Only once the number
      // of groups is right otherwise: the tables of fewer groups are longer.
      const uint64_t rest = plan.total_blocks % per_group;
      const uint64_t least = plan.table_blocks + 52;
      if (groups * per_group >= plan.total_blocks && rest != 0 && rest < least) {
        plan.total_blocks += least - rest;
      }
      const uint64_t needed = (plan.total_blocks + per_group - 1) / per_group;
      if (needed <= groups) break;
      groups = needed;
    }
    // A table that shrank over more groups may leave the last ones empty: fill them up.
    if (plan.total_blocks <= (groups - 1) * per_group) {
      plan.total_blocks = (groups - 1) * per_group + plan.table_blocks + 52;
    }
    plan.groups = static_cast<uint32_t>(groups);
    plan.inodes_per_group = static_cast<uint32_t>(plan.table_blocks * kInodesPerBlock);
    const uint64_t most = std::min<uint64_t>(kBlockBytes * 8, kInodesPerBlock * (per_group - 4));
    if (plan.table_blocks * kInodesPerBlock > most) continue;
    if (groups > uint64_t{kDescriptorBlocks} * (kBlockBytes / 64)) break;
    plan.block_bitmaps = end;
    plan.inode_bitmaps = end + groups;
    plan.inode_tables = end + 2 * groups;
    return plan;
  }
  return LayerRefused("the image is larger than 1 TiB, or has more files than ext4 can index");
}

absl::StatusOr<std::unique_ptr<Ext4Groups>> Ext4Groups::Create(const Ext4Geometry& geometry,
                                                               const Ext4Identity& identity,
                                                               bool value_inodes,
                                                               BlockWriter* writer) {
  std::unique_ptr<Ext4Groups> groups(new Ext4Groups(geometry, writer));
  RETURN_IF_ERROR(groups->Initialize(identity, value_inodes));
  return groups;
}

Ext4Groups::~Ext4Groups() {
  if (fs_ != nullptr) ext2fs_free(fs_);
}

absl::Status Ext4Groups::Initialize(const Ext4Identity& identity, bool value_inodes) {
  first_block_.assign(kBlockBytes, '\0');
  ext2_super_block wish = {};
  ext2fs_blocks_count_set(&wish, geometry_.total_blocks);
  wish.s_rev_level = EXT2_DYNAMIC_REV;
  wish.s_log_block_size = 2;
  wish.s_log_cluster_size = 2;
  wish.s_blocks_per_group = geometry_.blocks_per_group;
  wish.s_inodes_count = geometry_.inodes_per_group * geometry_.groups;
  wish.s_inode_size = kInodeBytes;
  wish.s_first_ino = kFirstFreeInode;
  wish.s_desc_size = 64;
  wish.s_log_groups_per_flex = 13;  // all groups of the largest image: one flex group
  wish.s_feature_compat = EXT2_FEATURE_COMPAT_EXT_ATTR | EXT2_FEATURE_COMPAT_DIR_INDEX |
                          EXT4_FEATURE_COMPAT_SPARSE_SUPER2;
  wish.s_feature_incompat = EXT2_FEATURE_INCOMPAT_FILETYPE | EXT3_FEATURE_INCOMPAT_EXTENTS |
                            EXT4_FEATURE_INCOMPAT_64BIT | EXT4_FEATURE_INCOMPAT_FLEX_BG;
  if (value_inodes) wish.s_feature_incompat |= EXT4_FEATURE_INCOMPAT_EA_INODE;
  wish.s_feature_ro_compat = EXT2_FEATURE_RO_COMPAT_LARGE_FILE | EXT4_FEATURE_RO_COMPAT_HUGE_FILE |
                             EXT4_FEATURE_RO_COMPAT_DIR_NLINK | EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE |
                             EXT4_FEATURE_RO_COMPAT_METADATA_CSUM;
  Ext4Io::current = this;
  const errcode_t made =
      ext2fs_initialize("image", EXT2_FLAG_64BITS, &wish, Ext4Io::Manager(), &fs_);
  Ext4Io::current = nullptr;
  if (made != 0) {
    fs_ = nullptr;
    return LibraryError("planning the file system", made);
  }
  ext2_super_block* super = fs_->super;
  if (ext2fs_blocks_count(super) != geometry_.total_blocks ||
      fs_->group_desc_count != geometry_.groups ||
      super->s_inodes_per_group != geometry_.inodes_per_group) {
    return BakeInternal("libext2fs planned another geometry than ours");
  }
  fs_->now = kTimestamp;
  std::memcpy(super->s_uuid, identity.uuid.data(), 16);
  std::memcpy(super->s_hash_seed, identity.hash_seed.data(), 16);
  const std::string label = absl::StrCat(kImageLabelPrefix, kBakeWriterVersion);
  BUNKER_CHECK(label.size() <= sizeof super->s_volume_name);
  std::memcpy(super->s_volume_name, label.data(), label.size());
  super->s_def_hash_version = EXT2_HASH_HALF_MD4;
  super->s_flags = EXT2_FLAGS_UNSIGNED_HASH;
  super->s_checksum_type = EXT2_CRC32C_CHKSUM;
  super->s_min_extra_isize = 32;
  super->s_want_extra_isize = 32;
  super->s_max_mnt_count = static_cast<uint16_t>(-1);
  super->s_checkinterval = 0;
  super->s_lastcheck = kTimestamp;
  super->s_mkfs_time = kTimestamp;
  super->s_wtime = kTimestamp;
  super->s_mtime = 0;
  super->s_wtime_hi = super->s_lastcheck_hi = super->s_mkfs_time_hi = super->s_mtime_hi = 0;
  super->s_default_mount_opts = EXT2_DEFM_XATTR_USER | EXT2_DEFM_ACL;
  super->s_errors = EXT2_ERRORS_CONTINUE;
  ext2fs_r_blocks_count_set(super, 0);
  ext2fs_init_csum_seed(fs_);

  used_blocks_.assign(geometry_.groups, 0);
  used_inodes_.assign(geometry_.groups, 0);
  directories_.assign(geometry_.groups, 0);
  MarkBlocks(0, 1 + fs_->desc_blocks);
  MarkBlocks(geometry_.block_bitmaps, geometry_.groups * (2 + geometry_.table_blocks));
  for (dgrp_t group = 0; group < geometry_.groups; ++group) {
    ext2fs_block_bitmap_loc_set(fs_, group, geometry_.block_bitmaps + group);
    ext2fs_inode_bitmap_loc_set(fs_, group, geometry_.inode_bitmaps + group);
    ext2fs_inode_table_loc_set(fs_, group, geometry_.inode_tables + group * geometry_.table_blocks);
  }
  return absl::OkStatus();
}

void Ext4Groups::MarkBlocks(uint64_t block, uint64_t count) {
  ext2fs_mark_block_bitmap_range2(fs_->block_map, block, static_cast<unsigned int>(count));
  while (count > 0) {
    const uint64_t group = block / geometry_.blocks_per_group;
    const uint64_t here = std::min(count, (group + 1) * geometry_.blocks_per_group - block);
    used_blocks_[group] += static_cast<uint32_t>(here);
    block += here;
    count -= here;
  }
}

void Ext4Groups::MarkInode(uint32_t inode, bool directory) {
  ext2fs_mark_inode_bitmap2(fs_->inode_map, inode);
  const uint32_t group = (inode - 1) / geometry_.inodes_per_group;
  ++used_inodes_[group];
  if (directory) ++directories_[group];
}

void Ext4Groups::SetInodeChecksum(uint32_t inode, char* raw) {
  BUNKER_CHECK(ext2fs_inode_csum_set(fs_, inode, reinterpret_cast<ext2_inode_large*>(raw)) == 0);
}

void Ext4Groups::CountGroups() {
  uint64_t free_blocks = 0;
  uint64_t free_inodes = 0;
  for (dgrp_t group = 0; group < geometry_.groups; ++group) {
    const uint64_t first = uint64_t{group} * geometry_.blocks_per_group;
    const uint64_t size =
        std::min<uint64_t>(geometry_.blocks_per_group, geometry_.total_blocks - first);
    const auto blocks = static_cast<uint32_t>(size - used_blocks_[group]);
    // Inodes are numbered without gaps: what is free lies at the end.
    const uint32_t inodes = geometry_.inodes_per_group - used_inodes_[group];
    ext2fs_bg_free_blocks_count_set(fs_, group, blocks);
    ext2fs_bg_free_inodes_count_set(fs_, group, inodes);
    ext2fs_bg_itable_unused_set(fs_, group, inodes);
    ext2fs_bg_used_dirs_count_set(fs_, group, directories_[group]);
    ext2fs_bg_flags_zap(fs_, group);
    ext2fs_bg_flags_set(fs_, group, EXT2_BG_INODE_ZEROED);
    ext2fs_group_desc_csum_set(fs_, group);
    free_blocks += blocks;
    free_inodes += inodes;
  }
  ext2fs_free_blocks_count_set(fs_->super, free_blocks);
  fs_->super->s_free_inodes_count = static_cast<uint32_t>(free_inodes);
}

absl::Status Ext4Groups::Write() {
  CountGroups();
  ext2fs_mark_super_dirty(fs_);
  ext2fs_mark_bb_dirty(fs_);
  ext2fs_mark_ib_dirty(fs_);
  if (const errcode_t code = ext2fs_write_bitmaps(fs_)) {
    return LibraryError("writing the bitmaps", code);
  }
  if (const errcode_t code = ext2fs_flush(fs_)) {
    return LibraryError("writing the superblock", code);
  }
  return writer_->WriteAt(0, first_block_);
}

}  // namespace bunker::agent
