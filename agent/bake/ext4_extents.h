// The extent tree of a file: four entries fit into the inode, more go to blocks of their own.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/bake/data_layout.h"
#include "agent/bake/ext4_checksum.h"

namespace bunker::agent {

inline constexpr size_t kInodeBlockBytes = 60;  // i_block

// Returns what goes into i_block. Tree blocks are handed to `append`, which returns their number;
// `*tree_blocks` counts them.
absl::StatusOr<std::string> EncodeExtents(
    const std::vector<DataRun>& runs, uint32_t inode, const Ext4Checksum& checksum,
    const std::function<absl::StatusOr<uint64_t>(const std::string& block)>& append,
    uint64_t* tree_blocks);

}  // namespace bunker::agent
