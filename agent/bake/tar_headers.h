// The headers of a tar stream as they stand there, for what libarchive does not tell.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace bunker::agent {

inline constexpr uint64_t kTarBlockBytes = 512;

// What the headers of one member say, raw.
struct RawHeaders {
  std::optional<std::string> path;
  std::optional<std::string> link;
  std::optional<std::string> mtime;
  bool has_nul = false;  // in a key, a name or a link
  std::optional<std::string> size;
  bool sparse = false;       // records of GNU's sparse forms
  bool map_in_data = false;  // the form whose map stands before the data, 1.0
  // Of a sparse file: how much data its size leaves for the map to place.
  std::optional<uint64_t> stored_bytes;
  char type = '0';
  const char* ambiguous = nullptr;  // why programs read this member differently
};

// Parses one pax payload ("<len> <key>=<value>\n" …) into `*headers`, later keys over earlier ones.
// It ends at what is malformed, and says so.
void ParsePaxPayload(std::string_view payload, RawHeaders* headers);

// Whether a pax payload holds nothing but comments.
bool HasCommentsOnly(std::string_view payload);

// "[-]<seconds>[.<fraction>]" as a time that rounds towards the past. False where it is none.
bool ParsePaxTime(std::string_view text, int64_t* seconds, uint32_t* nanoseconds);

// The octal number of a header's field; false where it is something else.
bool OctalField(std::string_view field, uint64_t* value);

// Some skip as many bytes, others none: what is hidden in them is a member to some.
inline constexpr char kSizeWithoutData[] = "a size where there can be no data";

// Why programs read a member with this header block differently; null where they do not.
const char* Ambiguity(std::string_view block);

}  // namespace bunker::agent
