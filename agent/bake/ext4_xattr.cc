#include "agent/bake/ext4_xattr.h"

#include <ext2fs/ext2fs.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "agent/bake/bake_error.h"
#include "agent/bake/posix_acl.h"
#include "common/base/log.h"

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
  size_t EntryBytes() const { return (kEntryBytes + name.size() + 3) & ~size_t{3}; }
  size_t ValueBytes() const { return (value.size() + 3) & ~size_t{3}; }
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
  return DiskXattr{space->index, rest, DiskValue(xattr.first, xattr.second)};
}

// Splits into what fits into the inode, in order, and what goes to the block.
void Split(const Xattrs& xattrs, std::vector<DiskXattr>* inode, std::vector<DiskXattr>* block,
           size_t* block_bytes) {
  size_t inode_bytes = kInodeHeaderBytes + kTerminatorBytes;
  *block_bytes = kBlockHeaderBytes + kTerminatorBytes;
  for (const auto& xattr : xattrs) {
    DiskXattr disk = ToDisk(xattr);
    if (inode_bytes + disk.Bytes() <= kInodeXattrBytes) {
      inode_bytes += disk.Bytes();
      inode->push_back(std::move(disk));
    } else {
      *block_bytes += disk.Bytes();
      block->push_back(std::move(disk));
    }
  }
}

// Entries from `first` on, values from the end down; value offsets count from `origin`.
uint32_t Place(const std::vector<DiskXattr>& xattrs, std::string* area, size_t first, size_t origin,
               bool hashed) {
  size_t at = first;
  size_t value_end = area->size();
  uint32_t hash = 0;
  for (const DiskXattr& xattr : xattrs) {
    value_end -= xattr.ValueBytes();
    // Built aside: the library's hash wants the entry and its name next to each other, aligned.
    alignas(4) char bytes[kEntryBytes + 256] = {};
    auto* entry = reinterpret_cast<ext2_ext_attr_entry*>(bytes);
    entry->e_name_len = static_cast<uint8_t>(xattr.name.size());
    entry->e_name_index = xattr.index;
    entry->e_value_offs = static_cast<uint16_t>(xattr.value.empty() ? 0 : value_end - origin);
    entry->e_value_size = static_cast<uint32_t>(xattr.value.size());
    std::memcpy(bytes + kEntryBytes, xattr.name.data(), xattr.name.size());
    std::memcpy(area->data() + value_end, xattr.value.data(), xattr.value.size());
    if (hashed) {
      // The hash runs over the value in words, padding included.
      std::string padded = xattr.value;
      padded.resize(xattr.ValueBytes());
      entry->e_hash = ext2fs_ext_attr_hash_entry(entry, padded.data());
      hash = (hash << 16) ^ (hash >> 16) ^ entry->e_hash;
    }
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
  std::vector<DiskXattr> inode, block;
  size_t block_bytes = 0;
  Split(*xattrs, &inode, &block, &block_bytes);
  if (block_bytes > kBlockBytes) {
    return LayerRefused("its extended attributes do not fit into one block of 4 KiB");
  }
  return absl::OkStatus();
}

EncodedXattrs EncodeXattrs(const Xattrs& xattrs) {
  EncodedXattrs encoded;
  std::vector<DiskXattr> inode, block;
  size_t block_bytes = 0;
  Split(xattrs, &inode, &block, &block_bytes);
  BUNKER_CHECK(block_bytes <= kBlockBytes);
  if (!inode.empty()) {
    encoded.inode.assign(kInodeXattrBytes, '\0');
    const uint32_t magic = EXT2_EXT_ATTR_MAGIC;
    std::memcpy(encoded.inode.data(), &magic, sizeof(magic));
    Place(inode, &encoded.inode, kInodeHeaderBytes, kInodeHeaderBytes, /*hashed=*/false);
  }
  if (!block.empty()) {
    encoded.block.assign(kBlockBytes, '\0');
    ext2_ext_attr_header header = {};
    header.h_magic = EXT2_EXT_ATTR_MAGIC;
    header.h_refcount = 1;
    header.h_blocks = 1;
    header.h_hash = Place(block, &encoded.block, kBlockHeaderBytes, 0, /*hashed=*/true);
    std::memcpy(encoded.block.data(), &header, sizeof(header));
  }
  return encoded;
}

}  // namespace bunker::agent
