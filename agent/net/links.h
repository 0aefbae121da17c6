// Taps and settings of links, in the namespace of the calling thread. Needs root.
//
// Thread-safe: free functions.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {

// The device goes with the descriptor.
absl::StatusOr<UniqueFd> MakeTap(const std::string& name);

// A file below /proc/sys.
absl::Status WriteSetting(const std::string& path, const char* value);

// Of every device that is here or comes.
absl::Status SilenceIpv6();

// For `tc`: "tbf rate …".
std::string TokenBucket(uint32_t mbit);

}  // namespace bunker::agent
