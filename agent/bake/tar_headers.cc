#include "agent/bake/tar_headers.h"

namespace bunker::agent {
namespace {

// One field of a header.
struct Field {
  size_t at;
  size_t bytes;
};
constexpr Field kNumbers[] = {{100, 8}, {108, 8}, {116, 8}, {124, 12}, {136, 12}};
constexpr Field kGnuTimes[] = {{345, 12}, {357, 12}};
constexpr Field kSize = {124, 12};
constexpr Field kPrefix = {345, 155};
constexpr size_t kTypeAt = 156;
constexpr size_t kFirstSparseAt = 386;
constexpr size_t kRealSizeAt = 483;

std::string_view Get(std::string_view block, const Field& field) {
  return block.substr(field.at, field.bytes);
}

bool IsZero(std::string_view bytes) {
  return bytes.find_first_not_of('\0') == std::string_view::npos;
}

// Base 256, or octal with blanks around it and nothing else. Where a zero byte comes first, some
// read on and others do not.
bool IsNumber(std::string_view field) {
  if (field[0] & 0x80) return true;
  uint64_t value = 0;
  if (!OctalField(field, &value)) return false;
  const size_t end = field.find_first_of(std::string_view("\0", 1));
  return end == std::string_view::npos ||
         field.find_first_not_of(std::string_view(" \0", 2), end) == std::string_view::npos;
}

}  // namespace

bool OctalField(std::string_view field, uint64_t* value) {
  *value = 0;
  size_t i = 0;
  while (i < field.size() && field[i] == ' ') ++i;
  for (; i < field.size() && field[i] >= '0' && field[i] <= '7'; ++i) {
    *value = *value * 8 + static_cast<uint64_t>(field[i] - '0');
  }
  return i == field.size() || field[i] == ' ' || field[i] == '\0';
}

const char* Ambiguity(std::string_view block) {
  for (const Field& field : kNumbers) {
    if (!IsNumber(Get(block, field))) return "a header's number with something else in it";
  }
  const char type = block[kTypeAt];
  uint64_t size = 0;
  if (type >= '2' && type <= '6' && !(OctalField(Get(block, kSize), &size) && size == 0)) {
    return kSizeWithoutData;
  }
  const std::string_view magic = block.substr(257, 8);
  if (magic == std::string_view("ustar  \0", 8)) {
    for (const Field& field : kGnuTimes) {
      if (!IsNumber(Get(block, field))) return "a name's prefix where GNU has its times";
    }
    const bool map = block[kFirstSparseAt] != '\0' && block[kRealSizeAt] != '\0';
    const bool no_map = block[kFirstSparseAt] == '\0' && block[kRealSizeAt] == '\0';
    if (type == 'S' ? !map : !no_map) return "a sparse file without its map, or a map without one";
    return nullptr;
  }
  if (type == 'S') return "sparse, but not in GNU's form";
  if (magic.substr(0, 5) != "ustar" && !IsZero(Get(block, kPrefix))) {
    return "a name's prefix in a header of the oldest form";
  }
  return nullptr;
}

}  // namespace bunker::agent
