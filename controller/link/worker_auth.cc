#include "controller/link/worker_auth.h"

#include <string_view>

#include "common/base/reason.h"
#include "common/base/rng.h"
#include "common/base/sha256.h"

namespace bunker::controller {
namespace {

constexpr size_t kSecretCharacters = 43;  // 62^43 > 2^256
constexpr std::string_view kBearer = "Bearer ";
constexpr size_t kMaxHeaderBytes = 512;

}  // namespace

std::string NewCredential() {
  return "wkc_" + RandomBase62(kSecretCharacters);
}

absl::StatusOr<std::string> CredentialHashOf(const grpc::CallbackServerContext& context) {
  const auto& metadata = context.client_metadata();
  const auto it = metadata.find("authorization");
  if (it == metadata.end() || metadata.count("authorization") != 1) {
    return ReasonError(absl::StatusCode::kUnauthenticated, "AUTH_TOKEN_MISSING",
                       "the call carries no worker credential; join the controller first "
                       "(`bunker-agent join`)");
  }
  const std::string_view value(it->second.data(), it->second.size());
  if (value.size() > kMaxHeaderBytes || value.substr(0, kBearer.size()) != kBearer) {
    return ReasonError(absl::StatusCode::kUnauthenticated, "AUTH_TOKEN_INVALID",
                       "the authorization of the call is not `Bearer <credential>`");
  }
  return Sha256Hex(value.substr(kBearer.size()));
}

}  // namespace bunker::controller
