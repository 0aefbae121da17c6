// CRC-32C (Castagnoli), with the CPU's instruction where it has one.
// Thread-safe: a free function.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bunker::wire {

// Of `size` bytes. To go on over a second part, pass the first part's result as `seed`.
uint32_t Crc32c(const void* data, size_t size, uint32_t seed = 0);

// The portable path, for tests that compare the two.
uint32_t Crc32cPortable(const void* data, size_t size, uint32_t seed = 0);

}  // namespace bunker::wire
