// POSIX access control lists in their two binary forms: the one of getxattr(2), which tar streams
// carry, and the one ext4 keeps on disk.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bunker::agent {

inline constexpr char kAclAccessName[] = "system.posix_acl_access";
inline constexpr char kAclDefaultName[] = "system.posix_acl_default";

struct AclEntry {
  uint16_t tag = 0;  // ACL_USER_OBJ 1, ACL_USER 2, ACL_GROUP_OBJ 4, ACL_GROUP 8, mask 16, other 32
  uint16_t permissions = 0;
  uint32_t id = 0;  // of ACL_USER and ACL_GROUP
};

// ARCHIVE_ENTRY_ACL_* → the kernel's tag; 0 where there is none.
uint16_t AclTagFromArchive(int tag);

// The getxattr(2) form; entries are put in the kernel's order.
std::string EncodeKernelAcl(std::vector<AclEntry> entries);

// getxattr(2) form → on-disk form. kInvalidArgument where it is malformed.
absl::StatusOr<std::string> DiskAclFromKernel(std::string_view value);

}  // namespace bunker::agent
