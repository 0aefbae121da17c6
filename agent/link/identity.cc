#include "agent/link/identity.h"

#include <sys/stat.h>

#include <cerrno>

#include "common/base/files.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace bunker::agent {
namespace {

constexpr size_t kMaxIdentityBytes = 64 * 1024;

absl::Status Unusable(const std::string& path, const char* what) {
  return ReasonError(absl::StatusCode::kFailedPrecondition, "INTERNAL",
                     "the identity file " + path + " " + what +
                         "; remove it and join again with a new token");
}

}  // namespace

std::string IdentityPath(const std::string& state_dir) { return state_dir + "/identity"; }

absl::StatusOr<Identity> LoadIdentity(const std::string& path) {
  struct stat info = {};
  if (::stat(path.c_str(), &info) != 0) return ErrnoError(errno, "identity file " + path);
  if ((info.st_mode & 077) != 0)
    return Unusable(path, "may be read by others (its mode must be 0600), so it may be known");
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxIdentityBytes));
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Unusable(path, "holds no JSON object");
  Identity identity;
  for (auto [key, field] : {std::pair{"worker_id", &identity.worker_id},
                            std::pair{"name", &identity.name},
                            std::pair{"credential", &identity.credential},
                            std::pair{"controller", &identity.controller}}) {
    const auto it = json.find(key);
    if (it == json.end() || !it->is_string()) return Unusable(path, "lacks a field");
    *field = it->get<std::string>();
  }
  if (identity.worker_id.empty() || identity.credential.empty())
    return Unusable(path, "has an empty field");
  return identity;
}

absl::Status SaveIdentity(const std::string& path, const Identity& identity) {
  const nlohmann::json json = {{"worker_id", identity.worker_id},
                               {"name", identity.name},
                               {"credential", identity.credential},
                               {"controller", identity.controller}};
  // Names and addresses may hold anything; a replacement is better than an exception.
  const std::string text = json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
  return WriteFileDurably(path, text + "\n", 0600);
}

}  // namespace bunker::agent
