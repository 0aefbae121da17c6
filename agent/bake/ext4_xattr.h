// Extended attributes as ext4 keeps them: some within the inode, the rest in one block of its own.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/bake/member.h"

namespace bunker::agent {

// What an inode of 256 bytes leaves for attributes.
inline constexpr size_t kInodeXattrBytes = 96;

// Whether ext4 has a place for names like this at all ("user.", "security.", …).
bool KnownXattrNamespace(std::string_view name);

// Refuses what ext4 cannot hold, drops all but the last of equal names, and sorts as ext4 wants.
// Errors: LAYER_UNSUPPORTED.
absl::Status CheckXattrs(Xattrs* xattrs);

struct EncodedXattrs {
  std::string inode;  // empty, or kInodeXattrBytes
  std::string block;  // empty, or one block; its checksum is still to be set
};

// REQUIRES: CheckXattrs() was happy with them.
EncodedXattrs EncodeXattrs(const Xattrs& xattrs);

}  // namespace bunker::agent
