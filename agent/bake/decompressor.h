// One compression, decoded exactly once. Which one is the caller's word (the media type), never a
// guess from the bytes: a stream that decodes to another compressed stream is not unwrapped again.
//
// Not thread-safe.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/bake/bake_types.h"

namespace bunker::agent {

// Frames that need a larger window are refused.
inline constexpr int kZstdWindowLogMax = 27;  // 128 MiB

class Decompressor {
 public:
  static std::unique_ptr<Decompressor> Create(Compression compression);
  virtual ~Decompressor() = default;

  // Takes bytes off the front of `*in`, writes up to `capacity` bytes to `out`, returns how many.
  // Call until `*in` is empty and less than `capacity` came out. Errors: LAYER_CORRUPT,
  // LAYER_UNSUPPORTED.
  virtual absl::StatusOr<size_t> Step(std::string_view* in, char* out, size_t capacity) = 0;

  // The input has ended: an error where it ended in the middle.
  virtual absl::Status Finish() = 0;
};

}  // namespace bunker::agent
