// Secrets at rest: sealed with AES-256-GCM under a key of the operator's, bound to the row that
// holds them.
//
// A ring holds several keys, so that they can be rotated: the first one seals, all of them open.
//
// Immutable after its making: thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/seal/aead.h"

namespace bunker {

class KeyRing {
 public:
  // The content of a key file: one key a line, 64 hex digits; empty lines and those that begin
  // with # are passed over. kInvalidArgument names `origin` and the line, never what is in it.
  static absl::StatusOr<KeyRing> Parse(std::string_view text, std::string_view origin);
  // The same from a file, which nobody but its owner may read (kFailedPrecondition). Blocking.
  static absl::StatusOr<KeyRing> Load(const std::string& path);
  // A fresh key's line, without its end.
  static std::string NewKey();

  ~KeyRing();
  KeyRing(KeyRing&&) noexcept = default;
  KeyRing& operator=(KeyRing&&) noexcept = default;
  KeyRing(const KeyRing&) = delete;
  KeyRing& operator=(const KeyRing&) = delete;

  // "1.<key id>.<base64>". What it is `bound_to` is not in it, and is needed to open it.
  std::string Seal(std::string_view secret, std::string_view bound_to) const;
  // kDataLoss where it was changed, or bound to something else; kNotFound where its key is not in
  // the ring.
  absl::StatusOr<std::string> Open(std::string_view sealed, std::string_view bound_to) const;
  // Whether it was sealed with the first key.
  bool IsCurrent(std::string_view sealed) const;

  // 32 bytes for another purpose, which tell nothing of the keys. Of the first key.
  std::string Derive(std::string_view purpose) const;

  size_t size() const { return keys_.size(); }

 private:
  struct Key {
    std::string id;
    std::string bytes;
  };
  KeyRing() = default;

  std::vector<Key> keys_;  // never empty
};

}  // namespace bunker
