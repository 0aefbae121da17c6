// What a guest says of its files, as bytes: records, each behind its length.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bunker::controller {

// The next record of `*data`, taken off it, or "": there is no whole one.
inline std::string_view TakeRecord(std::string_view* data) {
  if (data->size() < 4) return {};
  uint32_t size = 0;
  for (size_t i = 0; i < 4; ++i)
    size |= static_cast<uint32_t>(static_cast<unsigned char>((*data)[i])) << (8 * i);
  if (data->size() - 4 < size) return {};
  const std::string_view record = data->substr(4, size);
  data->remove_prefix(4 + size_t{size});
  return record;
}

}  // namespace bunker::controller
