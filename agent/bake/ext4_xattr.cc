#include "agent/bake/ext4_xattr.h"

#include <ext2fs/ext2fs.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "agent/bake/bake_error.h"
#include "agent/bake/posix_acl.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr size_t kMaxValueBytes = 65536;  // the kernel's XATTR_SIZE_MAX
constexpr size_t kMaxXattrs = 1000;
constexpr size_t kEntryBytes = sizeof(ext2_ext_attr_entry);
constexpr size_t kBlockHeaderBytes = sizeof(ext2_ext_attr_header);
constexpr size_t kInodeHeaderBytes = sizeof(uint32_t);
constexpr size_t kTerminatorBytes = sizeof(uint32_t);

struct Namespace {
  std::string_view prefix;
  uint8_t index;
  bool whole;  // the name is the prefix itself
};
constexpr Namespace kNamespaces[] = {
    {kAclAccessName, 2, true}, {kAclDefaultName, 3, true}, {"user.", 1, false},
    {"trusted.", 4, false},    {"security.", 6, false},    {"system.", 7, false},
};

const Namespace* Find(std::string_view name) {
  for (const Namespace& space : kNamespaces) {
    if (space.whole ? name == space.prefix : name.substr(0, space.prefix.size()) == space.prefix) {
      return &space;
    }
  }
  return nullptr;
}

struct DiskXattr {
  uint8_t index;
  std::string_view name;
  std::string value;
  bool in_block = false;     // not within the inode
  bool elsewhere = false;    // the value is in an inode of its own
  uint32_t value_inode = 0;  // once that has a number
  uint32_t value_hash = 0;
  size_t EntryBytes() const { return (kEntryBytes + name.size() + 3) & ~size_t{3}; }
  size_t ValueBytes() const { return elsewhere ? 0 : (value.size() + 3) & ~size_t{3}; }
  size_t Bytes() const { return EntryBytes() + ValueBytes(); }
};

std::string DiskValue(const std::string& name, const std::string& value) {
  if (name != kAclAccessName && name != kAclDefaultName) return value;
  absl::StatusOr<std::string> acl = DiskAclFromKernel(value);
  return acl.ok() ? *std::move(acl) : std::string();
}

DiskXattr ToDisk(const std::pair<std::string, std::string>& xattr) {
  const Namespace* space = Find(xattr.first);
  BUNKER_CHECK(space != nullptr);
  std::string_view rest = xattr.first;
  rest.remove_prefix(space->prefix.size());
  DiskXattr disk;
  disk.index = space->index;
  disk.name = rest;
  disk.value = DiskValue(xattr.first, xattr.second);
  return disk;
}

// Says of each whether it goes to the inode (while they fit, in order) or to the block. Returns the
// bytes of the block.
size_t Split(std::vector<DiskXattr>* xattrs) {
  size_t inode_bytes = kInodeHeaderBytes + kTerminatorBytes;
  size_t block_bytes = kBlockHeaderBytes + kTerminatorBytes;
  for (DiskXattr& xattr : *xattrs) {
    // With a value elsewhere there is a block, always: for an inode that has blocks but none of
    // these, e2fsck takes the target of a short symbolic link for numbers of blocks.
    xattr.in_block = xattr.elsewhere || inode_bytes + xattr.Bytes() > kInodeXattrBytes;
    (xattr.in_block ? block_bytes : inode_bytes) += xattr.Bytes();
  }
  return block_bytes;
}

// Makes room by moving the largest values out. False where the names alone are too much.
bool Place(std::vector<DiskXattr>* xattrs) {
  while (Split(xattrs) > kBlockBytes) {
    DiskXattr* largest = nullptr;
    for (DiskXattr& xattr : *xattrs) {
      if (!xattr.in_block || xattr.ValueBytes() == 0) continue;
      if (largest == nullptr || xattr.value.size() > largest->value.size()) largest = &xattr;
    }
    if (largest == nullptr) return false;
    largest->elsewhere = true;
  }
  return true;
}

std::vector<DiskXattr> ToDisk(const Xattrs& xattrs) {
  std::vector<DiskXattr> disk;
  disk.reserve(xattrs.size());
  for (const auto& xattr : xattrs) disk.push_back(ToDisk(xattr));
  return disk;
}

// One step of ext4's hash over words.
uint32_t Mix(uint32_t hash, uint32_t word) {
  return (hash << 16) ^ (hash >> 16) ^ word;
}

// Entries from `first` on, values from the end down; value offsets count from `origin`. Entries
// within the inode have no hash.
uint32_t Lay(const std::vector<DiskXattr>& xattrs, bool block, size_t first, size_t origin,
             std::string* area) {
  size_t at = first;
  size_t value_end = area->size();
  uint32_t hash = 0;
  for (const DiskXattr& xattr : xattrs) {
    if (xattr.in_block != block) continue;
    value_end -= xattr.ValueBytes();
    // Built aside: the library's hash wants the entry and its name next to each other, aligned.
    alignas(4) char bytes[kEntryBytes + 256] = {};
    auto* entry = reinterpret_cast<ext2_ext_attr_entry*>(bytes);
    entry->e_name_len = static_cast<uint8_t>(xattr.name.size());
    entry->e_name_index = xattr.index;
    entry->e_value_size = static_cast<uint32_t>(xattr.value.size());
    entry->e_value_inum = xattr.value_inode;
    std::memcpy(bytes + kEntryBytes, xattr.name.data(), xattr.name.size());
    if (xattr.elsewhere) {
      // The library hashes the name; the value's part is its inode's hash.
      entry->e_hash = Mix(ext2fs_ext_attr_hash_entry(entry, nullptr), xattr.value_hash);
    } else {
      entry->e_value_offs = static_cast<uint16_t>(xattr.value.empty() ? 0 : value_end - origin);
      std::memcpy(area->data() + value_end, xattr.value.data(), xattr.value.size());
      if (block) {
        // The hash runs over the value in words, padding included.
        std::string padded = xattr.value;
        padded.resize(xattr.ValueBytes());
        entry->e_hash = ext2fs_ext_attr_hash_entry(entry, padded.data());
      }
    }
    hash = Mix(hash, entry->e_hash);
    std::memcpy(area->data() + at, bytes, xattr.EntryBytes());
    at += xattr.EntryBytes();
  }
  return hash;
}

}  // namespace

bool KnownXattrNamespace(std::string_view name) {
  const Namespace* space = Find(name);
  return space != nullptr && (space->whole || name.size() > space->prefix.size());
}

absl::Status CheckXattrs(Xattrs* xattrs) {
  if (xattrs->empty()) return absl::OkStatus();
  if (xattrs->size() > kMaxXattrs) return LayerRefused("more than 1000 extended attributes");
  for (const auto& [name, value] : *xattrs) {
    if (name.size() > kMaxNameBytes) {
      return LayerRefused("an extended attribute's name is longer than 255 bytes");
    }
    if (value.size() > kMaxValueBytes) {
      return LayerRefused(
          absl::StrCat("the extended attribute ", Printable(name), " is larger than 64 KiB"));
    }
    if ((name == kAclAccessName || name == kAclDefaultName) && !DiskAclFromKernel(value).ok()) {
      return LayerRefused(absl::StrCat(name, " is malformed"));
    }
  }
  const auto key = [](const std::pair<std::string, std::string>& xattr) {
    const Namespace* space = Find(xattr.first);
    const size_t length = space->whole ? 0 : xattr.first.size() - space->prefix.size();
    return std::make_pair(space->index, length);
  };
  std::stable_sort(xattrs->begin(), xattrs->end(), [&](const auto& a, const auto& b) {
    if (key(a) != key(b)) return key(a) < key(b);
    return a.first < b.first;
  });
  Xattrs unique;
  for (auto& xattr : *xattrs) {
    if (!unique.empty() && unique.back().first == xattr.first) unique.pop_back();
    unique.push_back(std::move(xattr));
  }
  *xattrs = std::move(unique);
  std::vector<DiskXattr> disk = ToDisk(*xattrs);
  if (!Place(&disk)) {
    return LayerRefused("the names of its extended attributes do not fit into one block of 4 KiB");
  }
  return absl::OkStatus();
}

absl::StatusOr<EncodedXattrs> EncodeXattrs(const Xattrs& xattrs, const Ext4Checksum& checksum,
                                           const PutValue& put_value) {
  EncodedXattrs encoded;
  std::vector<DiskXattr> disk = ToDisk(xattrs);
  BUNKER_CHECK(Place(&disk));
  size_t in_block = 0;
  for (DiskXattr& xattr : disk) {
    if (xattr.in_block) ++in_block;
    if (!xattr.elsewhere) continue;
    xattr.value_hash = checksum.OfValue(xattr.value);
    ASSIGN_OR_RETURN(xattr.value_inode, put_value(xattr.value, xattr.value_hash));
  }
  if (in_block < disk.size()) {
    encoded.inode.assign(kInodeXattrBytes, '\0');
    const uint32_t magic = EXT2_EXT_ATTR_MAGIC;
    std::memcpy(encoded.inode.data(), &magic, sizeof(magic));
    Lay(disk, /*block=*/false, kInodeHeaderBytes, kInodeHeaderBytes, &encoded.inode);
  }
  if (in_block > 0) {
    encoded.block.assign(kBlockBytes, '\0');
    ext2_ext_attr_header header = {};
    header.h_magic = EXT2_EXT_ATTR_MAGIC;
    header.h_refcount = 1;
    header.h_blocks = 1;
    header.h_hash = Lay(disk, /*block=*/true, kBlockHeaderBytes, 0, &encoded.block);
    std::memcpy(encoded.block.data(), &header, sizeof(header));
  }
  return encoded;
}

}  // namespace bunker::agent
