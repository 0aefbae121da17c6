#include "controller/seal_keys.h"

#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "controller/engine/credentials.h"

namespace bunker::controller {
namespace {

constexpr char kFileName[] = "/credentials.key";
constexpr size_t kMaxFileBytes = 64u << 10;
constexpr char kHeader[] =
    "# Keys of the registry credentials in state.db, the newest first. Without them those must be\n"
    "# stored again; who has them and state.db has the secrets. Back them up apart.\n";

std::string SystemdKeyPath() {
  const char* folder = std::getenv("CREDENTIALS_DIRECTORY");
  if (folder == nullptr) return "";
  std::string path = std::string(folder) + kFileName;
  return ::access(path.c_str(), F_OK) == 0 ? path : "";
}

}  // namespace

absl::StatusOr<KeyRing> LoadSealKeys(const std::string& state_dir) {
  if (const std::string path = SystemdKeyPath(); !path.empty()) return KeyRing::Load(path);
  const std::string path = state_dir + kFileName;
  auto ring = KeyRing::Load(path);
  if (!absl::IsNotFound(ring.status())) return ring;
  std::string text = kHeader + KeyRing::NewKey() + "\n";
  const absl::Status written = WriteFileDurably(path, text, 0600);
  Wipe(text);
  RETURN_IF_ERROR(written);
  return KeyRing::Load(path);
}

void SealAnew(const KeyRing& keys, Engine& engine, Turn& turn) {
  size_t count = 0;
  for (const RowPtr<RegistryCredential>& row : engine.credentials().All()) {
    const std::string bound_to = SealedTo(row->id, row->host, row->username);
    auto secret = keys.Open(row->sealed, bound_to);
    if (!secret.ok()) {
      Log(Severity::kError, "credential.unreadable",
          {{"credential", row->id},
           {"name", row->name},
           {"why", std::string(secret.status().message())},
           {"remedy", "put its key back into the key file, or PUT the secret again"}});
      continue;
    }
    if (!keys.IsCurrent(row->sealed)) {
      engine.credentials().SealAnew(turn, row->id, keys.Seal(*secret, bound_to));
      ++count;
    }
    Wipe(*secret);
  }
  if (count == 0) return;
  turn.AfterCommit([count](const absl::Status& status) {
    Log(status.ok() ? Severity::kInfo : Severity::kError, "credentials.sealed_anew",
        {{"count", count},
         {"status", std::string(status.message())},
         {"next", "older keys may go from the key file once no backup needs them"}});
  });
}

absl::Status RotateSealKey(const std::string& state_dir) {
  if (!SystemdKeyPath().empty()) {
    return absl::FailedPreconditionError(
        "the key file comes from systemd's credentials: add a line of 64 hex digits in front "
        "there");
  }
  RETURN_IF_ERROR(LoadSealKeys(state_dir).status());
  const std::string path = state_dir + kFileName;
  ASSIGN_OR_RETURN(std::string before, ReadFile(path, kMaxFileBytes));
  std::string text = before.rfind(kHeader, 0) == 0 ? before.substr(sizeof kHeader - 1) : before;
  text = kHeader + KeyRing::NewKey() + "\n" + text;
  const auto parsed = KeyRing::Parse(text, path);
  const absl::Status written = parsed.ok() ? WriteFileDurably(path, text, 0600) : parsed.status();
  Wipe(text);
  Wipe(before);
  return written;
}

}  // namespace bunker::controller
