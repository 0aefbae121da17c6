// A content digest, `sha256:` and 64 lower-case hex digits: the only form that is ever used in a
// URL or a file name, so it is checked before anything else happens to it.
//
// Thread-safe: immutable values.
#pragma once

#include <compare>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace bunker::oci {

class Digest {
 public:
  // Empty: no digest known. str() and hex() are "".
  Digest() = default;

  // kInvalidArgument for anything but `sha256:[0-9a-f]{64}`; the message says what was wrong.
  static absl::StatusOr<Digest> Parse(std::string_view text);
  // REQUIRES: `hex` is 64 lower-case hex digits.
  static Digest FromHex(std::string_view hex);
  // The digest of `content`.
  static Digest Of(std::string_view content);

  bool empty() const { return hex_.empty(); }
  const std::string& hex() const { return hex_; }
  std::string str() const { return hex_.empty() ? "" : "sha256:" + hex_; }

  friend auto operator<=>(const Digest&, const Digest&) = default;

 private:
  std::string hex_;
};

}  // namespace bunker::oci
