// Where a layer's compressed bytes come from. A file that is complete today; the same interface
// serves a blob that is still being pulled, whose reads wait for the bytes to arrive.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {

class LayerSource {
 public:
  virtual ~LayerSource() = default;
  // Reads up to `capacity` bytes at `offset`; 0 means that the blob ends there. Blocking. One
  // thread at a time.
  virtual absl::StatusOr<size_t> ReadAt(uint64_t offset, char* buffer, size_t capacity) = 0;
  // From any thread: a read that waits, now or later, ends with CANCELLED.
  virtual void Stop() {}
};

class FdLayerSource : public LayerSource {
 public:
  explicit FdLayerSource(UniqueFd fd) : fd_(std::move(fd)) {}
  absl::StatusOr<size_t> ReadAt(uint64_t offset, char* buffer, size_t capacity) override;

 private:
  UniqueFd fd_;
};

}  // namespace bunker::agent
