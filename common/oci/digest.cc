#include "common/oci/digest.h"

#include "common/base/log.h"
#include "common/base/sha256.h"

namespace bunker::oci {
namespace {
constexpr std::string_view kPrefix = "sha256:";
constexpr size_t kHexDigits = 64;

bool IsHex(std::string_view hex) {
  if (hex.size() != kHexDigits) return false;
  for (const char c : hex) {
    if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
  }
  return true;
}
}  // namespace

absl::StatusOr<Digest> Digest::Parse(std::string_view text) {
  if (text.substr(0, kPrefix.size()) == kPrefix && IsHex(text.substr(kPrefix.size())))
    return FromHex(text.substr(kPrefix.size()));
  // What was given may be long and hostile: only its start is repeated.
  std::string shown;
  for (const char c : text.substr(0, 80)) shown.push_back(c >= ' ' && c < 0x7f ? c : '?');
  return absl::InvalidArgumentError("\"" + shown +
                                    "\" is not a digest: write sha256: and 64 lower-case hex "
                                    "digits (other algorithms are not supported)");
}

Digest Digest::FromHex(std::string_view hex) {
  BUNKER_CHECK(IsHex(hex));
  Digest digest;
  digest.hex_ = std::string(hex);
  return digest;
}

Digest Digest::Of(std::string_view content) {
  return FromHex(Sha256Hex(content));
}

}  // namespace bunker::oci
