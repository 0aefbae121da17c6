// What is installed in a baked file: the package databases of the distribution, and the metadata
// of Python and npm packages wherever they lie.
//
// Thread-safe: a free function. Meant for the confined child: what it reads is hostile.
#pragma once

#include "absl/status/statusor.h"
#include "bunker/scan/v1/inventory.pb.h"

namespace bunker::agent {

// An error where the file can't be read as ext4. What else goes wrong is a problem of the
// inventory: package data that is there and can't be read, or the lack of any.
absl::StatusOr<scan::v1::Inventory> TakeInventory(int fd);

}  // namespace bunker::agent
