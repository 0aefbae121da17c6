// Whole texts, compressed and back, with a bound on what comes out.
// Thread-safe: free functions without state.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace bunker {

std::string ZstdCompress(std::string_view text);

// kDataLoss where `bytes` is no zstd frame, kResourceExhausted where more than `max_bytes` would
// come out.
absl::StatusOr<std::string> ZstdDecompress(std::string_view bytes, size_t max_bytes);

}  // namespace bunker
