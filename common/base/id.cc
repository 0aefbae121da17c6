#include "common/base/id.h"

#include "common/base/hex.h"

namespace bunker {

std::string NewId(std::string_view prefix, absl::Time now, Rng& rng) {
  const auto ns = static_cast<uint64_t>(absl::ToUnixNanos(now));
  const uint64_t ms = ns / 1'000'000;
  // RFC 9562 §6.2, method 3: the part of a millisecond in the 12 bits after the version.
  const uint64_t fraction = (ns % 1'000'000) * 4096 / 1'000'000;
  std::string bytes;
  for (int shift = 40; shift >= 0; shift -= 8) bytes += static_cast<char>((ms >> shift) & 0xff);
  bytes += static_cast<char>(0x70 | (fraction >> 8));
  bytes += static_cast<char>(fraction & 0xff);
  bytes += rng.Bytes(8);
  bytes[8] = static_cast<char>((bytes[8] & 0x3f) | 0x80);
  return std::string(prefix) + HexEncode(bytes);
}

std::string UuidOf(std::string_view id) {
  const size_t underscore = id.find('_');
  if (underscore == std::string_view::npos) return "";
  std::string uuid(id.substr(underscore + 1));
  if (uuid.size() != 32) return "";
  for (const size_t at : {8u, 13u, 18u, 23u}) uuid.insert(at, 1, '-');
  return uuid;
}

std::string IdFromUuid(std::string_view prefix, std::string_view uuid) {
  std::string hex;
  for (size_t i = 0; i < uuid.size(); ++i) {
    const bool dash_place = i == 8 || i == 13 || i == 18 || i == 23;
    if (uuid.size() == 36 && dash_place) {
      if (uuid[i] != '-') return "";
      continue;
    }
    const char c = uuid[i];
    hex += c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  std::string bytes;
  if (hex.size() != 32 || !HexDecode(hex, &bytes)) return "";
  return std::string(prefix) + hex;
}

}  // namespace bunker
