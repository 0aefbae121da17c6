#include "controller/api/sealed_answer.h"

#include <optional>
#include <utility>

#include "common/seal/aead.h"

namespace bunker::controller {
namespace {

// The secret has 256 bits of its own, so one HMAC is derivation enough.
std::string KeyFrom(std::string_view secret) {
  return HmacSha256(secret, "bunker: a stored answer that holds a secret");
}

}  // namespace

std::string SealAnswer(std::string_view secret, std::string_view context, std::string_view answer) {
  return AeadSeal(KeyFrom(secret), context, answer);
}

absl::StatusOr<std::string> OpenAnswer(std::string_view secret, std::string_view context,
                                       std::string_view sealed) {
  std::optional<std::string> answer = AeadOpen(KeyFrom(secret), context, sealed);
  if (!answer) return absl::PermissionDeniedError("sealed with another secret");
  return *std::move(answer);
}

}  // namespace bunker::controller
