// One inode in its on-disk form.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "agent/bake/member.h"

namespace bunker::agent {

struct InodeFields {
  uint16_t type = 0;  // LINUX_S_IF*
  FileMetadata metadata;
  uint64_t size = 0;
  uint64_t blocks = 0;  // of 4 KiB, everything that belongs to the inode
  uint64_t links = 1;
  uint32_t flags = 0;  // EXT4_*_FL
  uint64_t xattr_block = 0;
  uint32_t value_hash = 0;   // with EXT4_EA_INODE_FL: of the attribute's value that the inode holds
  std::string_view i_block;  // up to 60 bytes
  std::string_view xattrs;   // empty or kInodeXattrBytes
};

// 256 bytes, the checksum still to be set.
std::string EncodeInode(const InodeFields& fields);

// What i_block holds for a device node: 8 bytes.
std::string EncodeDevice(uint32_t major, uint32_t minor);

}  // namespace bunker::agent
