#include "agent/bake/ext4_extents.h"

#include <ext2fs/ext2fs.h>
#include <ext2fs/ext3_extents.h>

#include <algorithm>
#include <cstring>

#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr size_t kEntryBytes = 12;  // of leaves, index nodes and headers alike
constexpr size_t kInodeEntries = (kInodeBlockBytes - kEntryBytes) / kEntryBytes;
constexpr size_t kBlockEntries = (kBlockBytes - kEntryBytes - 4) / kEntryBytes;
static_assert(sizeof(ext3_extent) == kEntryBytes && sizeof(ext3_extent_idx) == kEntryBytes &&
              sizeof(ext3_extent_header) == kEntryBytes);

// One entry of any level, encoded, and the first logical block beneath it.
struct Entry {
  uint32_t logical;
  char bytes[kEntryBytes];
};

template <typename Disk>
Entry Encode(uint32_t logical, const Disk& disk) {
  Entry entry;
  entry.logical = logical;
  std::memcpy(entry.bytes, &disk, kEntryBytes);
  return entry;
}

std::vector<Entry> Leaves(const std::vector<DataRun>& runs) {
  std::vector<Entry> leaves;
  for (const DataRun& run : runs) {
    for (uint64_t done = 0; done < run.blocks;) {
      const uint64_t count = std::min<uint64_t>(run.blocks - done, EXT_INIT_MAX_LEN);
      const uint64_t physical = run.physical + done;
      ext3_extent extent = {};
      extent.ee_block = static_cast<uint32_t>(run.logical + done);
      extent.ee_len = static_cast<uint16_t>(count);
      extent.ee_start = static_cast<uint32_t>(physical);
      extent.ee_start_hi = static_cast<uint16_t>(physical >> 32);
      leaves.push_back(Encode(extent.ee_block, extent));
      done += count;
    }
  }
  return leaves;
}

std::string Node(const Entry* entries, size_t count, size_t capacity, int depth, size_t bytes) {
  std::string node(bytes, '\0');
  ext3_extent_header header = {};
  header.eh_magic = EXT3_EXT_MAGIC;
  header.eh_entries = static_cast<uint16_t>(count);
  header.eh_max = static_cast<uint16_t>(capacity);
  header.eh_depth = static_cast<uint16_t>(depth);
  std::memcpy(node.data(), &header, kEntryBytes);
  for (size_t i = 0; i < count; ++i) {
    std::memcpy(node.data() + (i + 1) * kEntryBytes, entries[i].bytes, kEntryBytes);
  }
  return node;
}

}  // namespace

absl::StatusOr<std::string> EncodeExtents(
    const std::vector<DataRun>& runs, uint32_t inode, const Ext4Checksum& checksum,
    const std::function<absl::StatusOr<uint64_t>(const std::string& block)>& append,
    uint64_t* tree_blocks) {
  std::vector<Entry> level = Leaves(runs);
  int depth = 0;
  for (; level.size() > kInodeEntries; ++depth) {
    std::vector<Entry> above;
    for (size_t first = 0; first < level.size(); first += kBlockEntries) {
      const size_t count = std::min(kBlockEntries, level.size() - first);
      std::string block = Node(&level[first], count, kBlockEntries, depth, kBlockBytes);
      constexpr size_t kTail = kEntryBytes + kBlockEntries * kEntryBytes;
      const uint32_t crc = checksum.OfInode(inode, std::string_view(block).substr(0, kTail));
      std::memcpy(block.data() + kTail, &crc, sizeof(crc));
      ASSIGN_OR_RETURN(const uint64_t physical, append(block));
      ++*tree_blocks;
      ext3_extent_idx index = {};
      index.ei_block = level[first].logical;
      index.ei_leaf = static_cast<uint32_t>(physical);
      index.ei_leaf_hi = static_cast<uint16_t>(physical >> 32);
      above.push_back(Encode(index.ei_block, index));
    }
    level = std::move(above);
  }
  return Node(level.data(), level.size(), kInodeEntries, depth, kInodeBlockBytes);
}

}  // namespace bunker::agent
