#include "agent/bake/posix_acl.h"

#include <archive_entry.h>

#include <algorithm>

namespace bunker::agent {
namespace {

constexpr uint32_t kKernelVersion = 2;
constexpr uint32_t kDiskVersion = 1;
constexpr uint16_t kUser = 2;
constexpr uint16_t kGroup = 8;
constexpr uint32_t kNoId = 0xffffffff;

void Put(std::string* out, uint32_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

uint32_t Get(std::string_view in, size_t at, int bytes) {
  uint32_t value = 0;
  for (int i = 0; i < bytes; ++i) {
    value |= static_cast<uint32_t>(static_cast<unsigned char>(in[at + i])) << (8 * i);
  }
  return value;
}

bool HasId(uint32_t tag) {
  return tag == kUser || tag == kGroup;
}

}  // namespace

uint16_t AclTagFromArchive(int tag) {
  switch (tag) {
    case ARCHIVE_ENTRY_ACL_USER_OBJ:
      return 1;
    case ARCHIVE_ENTRY_ACL_USER:
      return kUser;
    case ARCHIVE_ENTRY_ACL_GROUP_OBJ:
      return 4;
    case ARCHIVE_ENTRY_ACL_GROUP:
      return kGroup;
    case ARCHIVE_ENTRY_ACL_MASK:
      return 16;
    case ARCHIVE_ENTRY_ACL_OTHER:
      return 32;
    default:
      return 0;
  }
}

std::string EncodeKernelAcl(std::vector<AclEntry> entries) {
  std::stable_sort(entries.begin(), entries.end(), [](const AclEntry& a, const AclEntry& b) {
    return a.tag != b.tag ? a.tag < b.tag : HasId(a.tag) && a.id < b.id;
  });
  std::string out;
  Put(&out, kKernelVersion, 4);
  for (const AclEntry& entry : entries) {
    Put(&out, entry.tag, 2);
    Put(&out, entry.permissions, 2);
    Put(&out, HasId(entry.tag) ? entry.id : kNoId, 4);
  }
  return out;
}

absl::StatusOr<std::string> DiskAclFromKernel(std::string_view value) {
  if (value.size() < 4 || (value.size() - 4) % 8 != 0 || Get(value, 0, 4) != kKernelVersion) {
    return absl::InvalidArgumentError("a malformed access control list");
  }
  std::string out;
  Put(&out, kDiskVersion, 4);
  for (size_t at = 4; at < value.size(); at += 8) {
    const uint32_t tag = Get(value, at, 2);
    if (tag != 1 && tag != 2 && tag != 4 && tag != 8 && tag != 16 && tag != 32) {
      return absl::InvalidArgumentError("an access control list with an unknown tag");
    }
    Put(&out, tag, 2);
    Put(&out, Get(value, at + 2, 2), 2);
    if (HasId(tag)) Put(&out, Get(value, at + 4, 4), 4);
  }
  return out;
}

}  // namespace bunker::agent
