// The blocks of one directory: linear where one block holds it, otherwise sorted by the hash of the
// names beneath an index, which the kernel can search.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/bake/ext4_checksum.h"

namespace bunker::agent {

struct DirectoryEntry {
  std::string_view name;
  uint32_t inode = 0;
  uint8_t type = 0;  // EXT2_FT_*
};

struct DirectoryBlocks {
  std::string bytes;  // whole blocks, in order
  bool indexed = false;
};

// `entries` without "." and "..", sorted by name. `hash_seed` is the superblock's, 16 bytes.
absl::StatusOr<DirectoryBlocks> EncodeDirectory(std::vector<DirectoryEntry> entries, uint32_t inode,
                                                uint32_t parent, std::string_view hash_seed,
                                                const Ext4Checksum& checksum);

}  // namespace bunker::agent
