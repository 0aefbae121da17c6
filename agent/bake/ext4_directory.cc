#include "agent/bake/ext4_directory.h"

#include <ext2fs/ext2fs.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "agent/bake/bake_error.h"
#include "agent/bake/data_layout.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr size_t kTailBytes = 12;  // of a block of entries
constexpr size_t kEntryHeaderBytes = 8;
constexpr size_t kLeafRoom = kBlockBytes - kTailBytes;
constexpr size_t kDotBytes = 12;
// An index entry is 8 bytes; each node's last is spent on the checksum.
constexpr size_t kRootHeaderBytes = 32;
constexpr size_t kNodeHeaderBytes = 8;
constexpr size_t kRootEntries = (kBlockBytes - kRootHeaderBytes) / 8 - 1;
constexpr size_t kNodeEntries = (kBlockBytes - kNodeHeaderBytes) / 8 - 1;
static_assert(kRootEntries == 507 && kNodeEntries == 510);

size_t EntryBytes(std::string_view name) {
  return (kEntryHeaderBytes + name.size() + 3) & ~3ull;
}

void Put(char* at, uint32_t value) {
  std::memcpy(at, &value, sizeof(value));
}
void Put16(char* at, size_t value) {
  const auto narrow = static_cast<uint16_t>(value);
  std::memcpy(at, &narrow, sizeof(narrow));
}

void PutEntry(char* at, uint32_t inode, size_t record_bytes, std::string_view name, uint8_t type) {
  Put(at, inode);
  Put16(at + 4, record_bytes);
  at[6] = static_cast<char>(name.size());
  at[7] = static_cast<char>(type);
  std::memcpy(at + kEntryHeaderBytes, name.data(), name.size());
}

// Fills blocks with entries; the last one of each stretches to the tail.
class LeafWriter {
 public:
  LeafWriter(std::string* out, uint32_t inode, const Ext4Checksum& checksum)
      : out_(out), inode_(inode), checksum_(checksum) {}

  void Begin() {
    start_ = out_->size();
    out_->resize(start_ + kBlockBytes, '\0');
    used_ = 0;
  }
  bool Fits(std::string_view name) const { return used_ + EntryBytes(name) <= kLeafRoom; }
  void Add(const DirectoryEntry& entry) {
    last_ = used_;
    PutEntry(out_->data() + start_ + used_, entry.inode, EntryBytes(entry.name), entry.name,
             entry.type);
    used_ += EntryBytes(entry.name);
  }
  void End() {
    char* block = out_->data() + start_;
    Put16(block + last_ + 4, kLeafRoom - last_);
    char* tail = block + kLeafRoom;
    Put16(tail + 4, kTailBytes);
    tail[7] = static_cast<char>(EXT2_DIR_NAME_LEN_CSUM >> 8);
    Put(tail + 8, checksum_.OfInode(inode_, std::string_view(block, kLeafRoom)));
  }

 private:
  std::string* out_;
  const uint32_t inode_;
  const Ext4Checksum& checksum_;
  size_t start_ = 0;
  size_t used_ = 0;
  size_t last_ = 0;
};

struct Hashed {
  uint32_t hash;
  uint32_t minor;
  DirectoryEntry entry;
};

struct IndexEntry {
  uint32_t hash;
  uint32_t block;
};

// The index entries of one node, its count and limit, and its checksum. The first entry's hash is
// implied (its place holds count and limit).
void FinishIndexNode(char* block, size_t header_bytes, size_t limit, const IndexEntry* entries,
                     size_t count, uint32_t inode, const Ext4Checksum& checksum) {
  char* at = block + header_bytes;
  Put16(at, limit);
  Put16(at + 2, count);
  for (size_t i = 0; i < count; ++i) {
    if (i > 0) Put(at + i * 8, entries[i].hash);
    Put(at + i * 8 + 4, entries[i].block);
  }
  // Over the entries in use, then the tail with its checksum field taken as zero.
  std::string covered(block, header_bytes + count * 8);
  covered.append(8, '\0');
  Put(at + limit * 8 + 4, checksum.OfInode(inode, covered));
}

absl::Status HashNames(const std::vector<DirectoryEntry>& entries, std::string_view hash_seed,
                       std::vector<Hashed>* hashed) {
  uint32_t seed[4];
  std::memcpy(seed, hash_seed.data(), sizeof(seed));
  hashed->reserve(entries.size());
  for (const DirectoryEntry& entry : entries) {
    Hashed item{0, 0, entry};
    if (ext2fs_dirhash2(EXT2_HASH_HALF_MD4_UNSIGNED, entry.name.data(),
                        static_cast<int>(entry.name.size()), nullptr, 0, seed, &item.hash,
                        &item.minor) != 0) {
      return BakeInternal("a name cannot be hashed");
    }
    hashed->push_back(item);
  }
  std::sort(hashed->begin(), hashed->end(), [](const Hashed& a, const Hashed& b) {
    if (a.hash != b.hash) return a.hash < b.hash;
    if (a.minor != b.minor) return a.minor < b.minor;
    return a.entry.name < b.entry.name;
  });
  return absl::OkStatus();
}

// Appends the leaves to `bytes`, whose first blocks are reserved for the index.
std::vector<IndexEntry> WriteLeaves(const std::vector<Hashed>& hashed, uint32_t inode,
                                    const Ext4Checksum& checksum, std::string* bytes) {
  std::vector<IndexEntry> leaves;
  LeafWriter leaf(bytes, inode, checksum);
  bool open = false;
  for (size_t i = 0; i < hashed.size(); ++i) {
    if (open && !leaf.Fits(hashed[i].entry.name)) {
      leaf.End();
      open = false;
    }
    if (!open) {
      uint32_t hash = hashed[i].hash;
      // Names of one hash on both sides: the low bit says "look at the leaf before, too".
      if (i > 0 && hashed[i - 1].hash == hash) hash |= 1;
      leaves.push_back(IndexEntry{hash, static_cast<uint32_t>(bytes->size() / kBlockBytes)});
      leaf.Begin();
      open = true;
    }
    leaf.Add(hashed[i].entry);
  }
  if (open) leaf.End();
  return leaves;
}

size_t CountLeaves(const std::vector<Hashed>& hashed) {
  size_t leaves = 0;
  size_t used = kLeafRoom;
  for (const Hashed& item : hashed) {
    const size_t bytes = EntryBytes(item.entry.name);
    if (used + bytes > kLeafRoom) {
      ++leaves;
      used = 0;
    }
    used += bytes;
  }
  return leaves;
}

void WriteRoot(char* block, uint32_t inode, uint32_t parent, int levels) {
  PutEntry(block, inode, kDotBytes, ".", EXT2_FT_DIR);
  PutEntry(block + kDotBytes, parent, kBlockBytes - kDotBytes, "..", EXT2_FT_DIR);
  char* info = block + 2 * kDotBytes;  // struct ext2_dx_root_info
  info[4] = EXT2_HASH_HALF_MD4;        // the superblock's flag says "unsigned"
  info[5] = 8;
  info[6] = static_cast<char>(levels);
}

absl::StatusOr<DirectoryBlocks> EncodeIndexed(const std::vector<DirectoryEntry>& entries,
                                              uint32_t inode, uint32_t parent,
                                              std::string_view hash_seed,
                                              const Ext4Checksum& checksum) {
  std::vector<Hashed> hashed;
  RETURN_IF_ERROR(HashNames(entries, hash_seed, &hashed));
  const size_t leaf_count = CountLeaves(hashed);
  const size_t nodes =
      leaf_count <= kRootEntries ? 0 : (leaf_count + kNodeEntries - 1) / kNodeEntries;
  if (nodes > kRootEntries) return LayerRefused("a directory has too many entries for its index");
  DirectoryBlocks result;
  result.indexed = true;
  result.bytes.assign((1 + nodes) * kBlockBytes, '\0');
  const std::vector<IndexEntry> leaves = WriteLeaves(hashed, inode, checksum, &result.bytes);
  BUNKER_CHECK(leaves.size() == leaf_count);
  char* root = result.bytes.data();
  WriteRoot(root, inode, parent, nodes == 0 ? 0 : 1);
  if (nodes == 0) {
    FinishIndexNode(root, kRootHeaderBytes, kRootEntries, leaves.data(), leaves.size(), inode,
                    checksum);
    return result;
  }
  std::vector<IndexEntry> above;
  for (size_t n = 0; n < nodes; ++n) {
    const size_t first = n * kNodeEntries;
    const size_t count = std::min(kNodeEntries, leaves.size() - first);
    char* node = root + (1 + n) * kBlockBytes;
    PutEntry(node, 0, kBlockBytes, "", 0);
    FinishIndexNode(node, kNodeHeaderBytes, kNodeEntries, &leaves[first], count, inode, checksum);
    above.push_back(IndexEntry{leaves[first].hash, static_cast<uint32_t>(1 + n)});
  }
  FinishIndexNode(root, kRootHeaderBytes, kRootEntries, above.data(), above.size(), inode,
                  checksum);
  return result;
}

}  // namespace

absl::StatusOr<DirectoryBlocks> EncodeDirectory(std::vector<DirectoryEntry> entries, uint32_t inode,
                                                uint32_t parent, std::string_view hash_seed,
                                                const Ext4Checksum& checksum) {
  size_t bytes = 2 * kDotBytes;
  for (const DirectoryEntry& entry : entries) bytes += EntryBytes(entry.name);
  if (bytes > kLeafRoom) return EncodeIndexed(entries, inode, parent, hash_seed, checksum);
  DirectoryBlocks result;
  LeafWriter leaf(&result.bytes, inode, checksum);
  leaf.Begin();
  leaf.Add(DirectoryEntry{".", inode, EXT2_FT_DIR});
  leaf.Add(DirectoryEntry{"..", parent, EXT2_FT_DIR});
  for (const DirectoryEntry& entry : entries) leaf.Add(entry);
  leaf.End();
  return result;
}

}  // namespace bunker::agent
