#include "agent/bake/ext4_inode.h"

#include <ext2fs/ext2fs.h>

#include <bit>
#include <cstring>

#include "agent/bake/data_layout.h"
#include "agent/bake/ext4_groups.h"
#include "common/base/log.h"

namespace bunker::agent {
namespace {

static_assert(std::endian::native == std::endian::little, "ext4 is little-endian");

constexpr uint64_t kMaxDirectoryLinks = 64'999;  // beyond it, 1 says "many" (dir_nlink)
constexpr uint16_t kExtraBytes = 32;

}  // namespace

std::string EncodeInode(const InodeFields& fields) {
  ext2_inode_large inode = {};
  const FileMetadata& metadata = fields.metadata;
  inode.i_mode = static_cast<uint16_t>(fields.type | metadata.mode);
  inode.i_uid = static_cast<uint16_t>(metadata.uid);
  inode.osd2.linux2.l_i_uid_high = static_cast<uint16_t>(metadata.uid >> 16);
  inode.i_gid = static_cast<uint16_t>(metadata.gid);
  inode.osd2.linux2.l_i_gid_high = static_cast<uint16_t>(metadata.gid >> 16);
  inode.i_size = static_cast<uint32_t>(fields.size);
  inode.i_size_high = static_cast<uint32_t>(fields.size >> 32);
  // The low word wraps, two bits of the extra one count the wraps; the rest are nanoseconds.
  const auto low = static_cast<int32_t>(metadata.mtime_seconds);
  const auto epoch = static_cast<uint32_t>((metadata.mtime_seconds - low) >> 32) & 3;
  const uint32_t extra = (metadata.mtime_nanoseconds << 2) | epoch;
  inode.i_mtime = inode.i_ctime = inode.i_atime = inode.i_crtime = static_cast<uint32_t>(low);
  inode.i_mtime_extra = inode.i_ctime_extra = inode.i_atime_extra = inode.i_crtime_extra = extra;
  inode.i_links_count = static_cast<uint16_t>(
      fields.links > kMaxDirectoryLinks && LINUX_S_ISDIR(fields.type) ? 1 : fields.links);
  const uint64_t sectors = fields.blocks * (kBlockBytes / 512);
  inode.i_blocks = static_cast<uint32_t>(sectors);
  inode.osd2.linux2.l_i_blocks_hi = static_cast<uint16_t>(sectors >> 32);
  inode.i_flags = fields.flags;
  inode.i_file_acl = static_cast<uint32_t>(fields.xattr_block);
  inode.osd2.linux2.l_i_file_acl_high = static_cast<uint16_t>(fields.xattr_block >> 32);
  inode.i_extra_isize = kExtraBytes;
  if (fields.flags & EXT4_EA_INODE_FL) {
    // Time fields that mean something else here: the value's hash, and how many entries use it.
    auto* plain = reinterpret_cast<ext2_inode*>(&inode);
    ext2fs_set_ea_inode_hash(plain, fields.value_hash);
    ext2fs_set_ea_inode_ref(plain, 1);
  }
  BUNKER_CHECK(fields.i_block.size() <= sizeof(inode.i_block));
  std::memcpy(inode.i_block, fields.i_block.data(), fields.i_block.size());

  std::string raw(kInodeBytes, '\0');
  std::memcpy(raw.data(), &inode, sizeof(inode));
  const size_t area = EXT2_GOOD_OLD_INODE_SIZE + kExtraBytes;
  BUNKER_CHECK(area + fields.xattrs.size() <= raw.size());
  std::memcpy(raw.data() + area, fields.xattrs.data(), fields.xattrs.size());
  return raw;
}

std::string EncodeDevice(uint32_t major, uint32_t minor) {
  uint32_t words[2] = {0, 0};
  if (major < 256 && minor < 256) {
    words[0] = (major << 8) | minor;
  } else {
    words[1] = (minor & 0xff) | (major << 8) | ((minor & ~0xffu) << 12);
  }
  return std::string(reinterpret_cast<const char*>(words), sizeof(words));
}

}  // namespace bunker::agent
