// Extended attributes as ext4 keeps them: some within the inode, the rest in one block of its own,
// and values for which there is no room in it each in an inode of its own (feature ea_inode).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/bake/ext4_checksum.h"
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

// Puts a value into an inode of its own and returns its number. `hash` is the value's checksum.
using PutValue = std::function<absl::StatusOr<uint32_t>(std::string_view value, uint32_t hash)>;

// `put_value` is called only where the attributes do not fit into the inode and one block: then for
// the largest values, as many as it takes. REQUIRES: CheckXattrs() was happy with them.
absl::StatusOr<EncodedXattrs> EncodeXattrs(const Xattrs& xattrs, const Ext4Checksum& checksum,
                                           const PutValue& put_value);

}  // namespace bunker::agent
