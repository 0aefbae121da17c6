#include "agent/commands/image_file.h"

#include <ext2fs/ext2fs.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string_view>

#include "agent/bake/bake_types.h"
#include "agent/bake/data_layout.h"
#include "common/base/converters.h"
#include "common/base/hex.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr uint64_t kSuperblockOffset = 1024;
constexpr uint64_t kMaxFileBytes = 1ull << 40;  // the largest cap
constexpr uint32_t kInodeBytes = 256;
constexpr uint32_t kDescriptorBytes = 64;
constexpr uint32_t kRootInode = EXT2_ROOT_INO;
constexpr uint32_t kFirstFreeInode = 11;

struct Feature {
  uint32_t bit;
  const char* name;
};
constexpr Feature kCompatible[] = {{0x0004, "has_journal"},   {0x0008, "ext_attr"},
                                   {0x0010, "resize_inode"},  {0x0020, "dir_index"},
                                   {0x0200, "sparse_super2"}, {0x1000, "orphan_file"},
                                   {0x0800, "stable_inodes"}};
constexpr Feature kIncompatible[] = {{0x0002, "filetype"}, {0x0004, "needs_recovery"},
                                     {0x0010, "meta_bg"},  {0x0040, "extent"},
                                     {0x0080, "64bit"},    {0x0200, "flex_bg"},
                                     {0x0400, "ea_inode"}, {0x2000, "metadata_csum_seed"},
                                     {0x4000, "largedir"}, {0x8000, "inline_data"},
                                     {0x10000, "encrypt"}, {0x20000, "casefold"}};
constexpr Feature kReadOnly[] = {
    {0x0001, "sparse_super"}, {0x0002, "large_file"}, {0x0008, "huge_file"},
    {0x0010, "uninit_bg"},    {0x0020, "dir_nlink"},  {0x0040, "extra_isize"},
    {0x0100, "quota"},        {0x0200, "bigalloc"},   {0x0400, "metadata_csum"},
    {0x2000, "project"},      {0x8000, "verity"}};

absl::Status NotOurs(std::string_view why) {
  return ReasonError(absl::StatusCode::kDataLoss, "LAYER_CORRUPT",
                     "not an image that bunker-agent baked: " + std::string(why));
}

absl::Status Damaged(std::string_view why) {
  return ReasonError(absl::StatusCode::kDataLoss, "LAYER_CORRUPT",
                     "the image is damaged (" + std::string(why) + "): bake it again");
}

absl::Status ReadAt(int fd, uint64_t offset, void* to, size_t size) {
  char* out = static_cast<char*>(to);
  while (size > 0) {
    const ssize_t count = ::pread(fd, out, size, static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return WithReason(ErrnoError(errno, "reading it"), "SOURCE_NOT_READABLE");
    if (count == 0) return Damaged("it is cut short");
    out += count;
    offset += static_cast<uint64_t>(count);
    size -= static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

void NameFeatures(const ext2_super_block& super, std::vector<std::string>* names) {
  const auto name = [names](uint32_t bits, const auto& known) {
    for (const Feature& feature : known) {
      if ((bits & feature.bit) != 0) names->emplace_back(feature.name);
      bits &= ~feature.bit;
    }
    if (bits != 0) names->push_back("unknown:" + std::to_string(bits));
  };
  name(super.s_feature_compat, kCompatible);
  name(super.s_feature_incompat, kIncompatible);
  name(super.s_feature_ro_compat, kReadOnly);
}

std::string UuidText(const uint8_t* raw) {
  std::string text = HexEncode(std::string(reinterpret_cast<const char*>(raw), 16));
  for (size_t at : {20, 16, 12, 8}) text.insert(at, 1, '-');
  return text;
}

uint64_t Wide(uint32_t high, uint32_t low) {
  return uint64_t{high} << 32 | low;
}

absl::Status CheckSuperblock(const ext2_super_block& super, uint64_t file_bytes) {
  if (super.s_magic != EXT2_SUPER_MAGIC) return NotOurs("it holds no ext4 file system");
  const std::string_view label(reinterpret_cast<const char*>(super.s_volume_name),
                               sizeof super.s_volume_name);
  if (label.substr(0, std::strlen(kImageLabelPrefix)) != kImageLabelPrefix)
    return NotOurs("another program made this ext4 file system");
  const uint32_t checksum = ext2fs_crc32c_le(~0u, reinterpret_cast<const unsigned char*>(&super),
                                             offsetof(ext2_super_block, s_checksum));
  if (checksum != super.s_checksum) return Damaged("the superblock's checksum is wrong");
  if (super.s_log_block_size != 2 || super.s_inode_size != kInodeBytes ||
      super.s_desc_size != kDescriptorBytes || super.s_blocks_per_group == 0 ||
      super.s_blocks_per_group > 8 * kBlockBytes || super.s_inodes_per_group == 0 ||
      super.s_inodes_per_group > 8 * kBlockBytes) {
    return Damaged("its geometry is not one that a bake chooses");
  }
  const uint64_t blocks = Wide(super.s_blocks_count_hi, super.s_blocks_count);
  if (blocks > kMaxFileBytes / kBlockBytes || blocks * kBlockBytes != file_bytes) {
    return Damaged("it has " + std::to_string(file_bytes) + " bytes and should have " +
                   std::to_string(blocks) + " blocks");
  }
  const uint64_t groups = (blocks + super.s_blocks_per_group - 1) / super.s_blocks_per_group;
  if (groups * super.s_inodes_per_group != super.s_inodes_count ||
      groups * kDescriptorBytes > uint64_t{kDescriptorBlocks} * kBlockBytes) {
    return Damaged("its groups and inodes do not fit together");
  }
  return absl::OkStatus();
}

void CountInode(uint32_t number, const ext2_inode_large& inode, ImageFileFacts* facts) {
  if (inode.i_links_count == 0 || number == kRootInode) return;
  // Values of extended attributes that have inodes of their own are no paths.
  if ((inode.i_flags & EXT4_EA_INODE_FL) != 0) return;
  if (LINUX_S_ISDIR(inode.i_mode)) {
    ++facts->directories;
    ++facts->entries;
    return;
  }
  facts->entries += inode.i_links_count;
  if (LINUX_S_ISREG(inode.i_mode)) {
    ++facts->regular_files;
    facts->content_bytes += Wide(inode.i_size_high, inode.i_size);
  } else if (LINUX_S_ISLNK(inode.i_mode)) {
    ++facts->symlinks;
  } else {
    ++facts->other_files;
  }
}

absl::Status CountGroup(int fd, const ext2_super_block& super, uint32_t group,
                        ImageFileFacts* facts) {
  ext4_group_desc descriptor;
  RETURN_IF_ERROR(
      ReadAt(fd, kBlockBytes + uint64_t{group} * kDescriptorBytes, &descriptor, sizeof descriptor));
  const uint64_t table = Wide(descriptor.bg_inode_table_hi, descriptor.bg_inode_table);
  const uint32_t unused =
      static_cast<uint32_t>(descriptor.bg_itable_unused_hi) << 16 | descriptor.bg_itable_unused;
  const uint64_t bytes = uint64_t{super.s_inodes_per_group} * kInodeBytes;
  if (unused > super.s_inodes_per_group || table >= facts->blocks ||
      table * kBlockBytes + bytes > facts->apparent_bytes) {
    return Damaged("a group's inode table lies outside of the file");
  }
  const uint32_t used = super.s_inodes_per_group - unused;
  std::vector<char> inodes(uint64_t{used} * kInodeBytes);
  RETURN_IF_ERROR(ReadAt(fd, table * kBlockBytes, inodes.data(), inodes.size()));
  for (uint32_t i = 0; i < used; ++i) {
    ext2_inode_large inode = {};
    std::memcpy(&inode, inodes.data() + size_t{i} * kInodeBytes,
                std::min<size_t>(sizeof inode, kInodeBytes));
    const uint32_t number = group * super.s_inodes_per_group + i + 1;
    if (number == kRootInode || number >= kFirstFreeInode) CountInode(number, inode, facts);
  }
  return absl::OkStatus();
}

// Holes as the file system that holds the file knows them; one that knows none says "all data".
void CountExtents(int fd, ImageFileFacts* facts) {
  const auto end = static_cast<off_t>(facts->apparent_bytes);
  uint64_t data_bytes = 0;
  for (off_t at = 0; at < end;) {
    const off_t data = ::lseek(fd, at, SEEK_DATA);
    if (data < 0) break;
    const off_t hole = std::max(::lseek(fd, data, SEEK_HOLE), data + 1);
    data_bytes += static_cast<uint64_t>(std::min(hole, end) - data);
    ++facts->data_extents;
    at = hole;
  }
  facts->hole_bytes = facts->apparent_bytes - std::min(data_bytes, facts->apparent_bytes);
}

}  // namespace

absl::StatusOr<int> OpenImageFile(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return WithReason(ErrnoError(errno, "opening " + path), "SOURCE_NOT_READABLE");
  struct stat info;
  if (::fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) return fd;
  ::close(fd);
  return ReasonError(absl::StatusCode::kInvalidArgument, "SOURCE_NOT_READABLE",
                     path + " is not a regular file");
}

absl::StatusOr<ImageFileFacts> ReadImageFile(int fd) {
  struct stat info;
  if (::fstat(fd, &info) != 0) return ErrnoError(errno, "fstat");
  ImageFileFacts facts;
  facts.apparent_bytes = static_cast<uint64_t>(info.st_size);
  facts.allocated_bytes = static_cast<uint64_t>(info.st_blocks) * 512;
  if (facts.apparent_bytes < 2 * kBlockBytes) return NotOurs("it is too small");
  ext2_super_block super;
  static_assert(sizeof super == 1024);
  RETURN_IF_ERROR(ReadAt(fd, kSuperblockOffset, &super, sizeof super));
  RETURN_IF_ERROR(CheckSuperblock(super, facts.apparent_bytes));
  const char* label = reinterpret_cast<const char*>(super.s_volume_name);
  facts.label.assign(label, ::strnlen(label, sizeof super.s_volume_name));
  facts.uuid = UuidText(super.s_uuid);
  NameFeatures(super, &facts.features);
  facts.block_bytes = kBlockBytes;
  facts.blocks = Wide(super.s_blocks_count_hi, super.s_blocks_count);
  facts.free_blocks = Wide(super.s_free_blocks_hi, super.s_free_blocks_count);
  facts.inodes = super.s_inodes_count;
  facts.free_inodes = super.s_free_inodes_count;
  for (uint32_t group = 0; group < super.s_inodes_count / super.s_inodes_per_group; ++group)
    RETURN_IF_ERROR(CountGroup(fd, super, group, &facts));
  CountExtents(fd, &facts);
  return facts;
}

}  // namespace bunker::agent
