// The checksums of metadata blocks, which cover the file system's UUID and the owning inode.
#pragma once

#include <ext2fs/ext2fs.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace bunker::agent {

class Ext4Checksum {
 public:
  explicit Ext4Checksum(std::string_view uuid) : seed_(Crc(~0u, uuid)) {}

  // crc32c over the UUID, the inode's number and generation (always 0), and `data`.
  uint32_t OfInode(uint32_t inode, std::string_view data) const {
    const uint32_t numbers[2] = {inode, 0};
    const uint32_t crc =
        Crc(seed_, std::string_view(reinterpret_cast<const char*>(numbers), sizeof(numbers)));
    return Crc(crc, data);
  }

  // crc32c over the UUID and `data`: values of extended attributes that have an inode of their own.
  uint32_t OfValue(std::string_view data) const { return Crc(seed_, data); }

  // crc32c over the UUID, a block's own number, and `data`: extended attribute blocks.
  uint32_t OfBlock(uint64_t block, std::string_view data) const {
    const uint32_t crc =
        Crc(seed_, std::string_view(reinterpret_cast<const char*>(&block), sizeof(block)));
    return Crc(crc, data);
  }

 private:
  static uint32_t Crc(uint32_t seed, std::string_view data) {
    return ext2fs_crc32c_le(seed, reinterpret_cast<const unsigned char*>(data.data()), data.size());
  }
  const uint32_t seed_;
};

}  // namespace bunker::agent
