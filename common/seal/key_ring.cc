#include "common/seal/key_ring.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "common/base/files.h"
#include "common/base/hex.h"
#include "common/base/reason.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "common/seal/aead.h"

namespace bunker {
namespace {

constexpr size_t kMaxFileBytes = 64u << 10;
constexpr size_t kMaxKeys = 16;
constexpr std::string_view kVersion = "1.";

absl::Status WrongLine(std::string_view origin, size_t line, std::string_view why) {
  return absl::InvalidArgumentError("key file " + std::string(origin) + ", line " +
                                    std::to_string(line) + ": " + std::string(why));
}

absl::Status Broken() {
  return absl::DataLossError("a sealed secret was changed, or belongs to another row");
}

}  // namespace

KeyRing::~KeyRing() {
  for (Key& key : keys_) Wipe(key.bytes);
}

std::string KeyRing::NewKey() {
  return HexEncode(SystemRng().Bytes(kAeadKeyBytes));
}

absl::StatusOr<KeyRing> KeyRing::Parse(std::string_view text, std::string_view origin) {
  KeyRing ring;
  size_t number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    ++number;
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
    if (line.empty() || line.front() == '#') continue;
    Key key;
    if (!HexDecode(std::string(line), &key.bytes) || key.bytes.size() != kAeadKeyBytes)
      return WrongLine(origin, number, "a key is 64 hex digits");
    if (ring.keys_.size() == kMaxKeys)
      return WrongLine(origin, number, "more than 16 keys: remove those that nothing needs");
    key.id = HexEncode(HmacSha256(key.bytes, "key id")).substr(0, 8);
    ring.keys_.push_back(std::move(key));
  }
  if (ring.keys_.empty())
    return absl::InvalidArgumentError("key file " + std::string(origin) + " holds no key");
  return ring;
}

absl::StatusOr<KeyRing> KeyRing::Load(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return ErrnoError(errno, "key file " + path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return ErrnoError(errno, "key file " + path);
  if ((info.st_mode & 077) != 0) {
    return absl::FailedPreconditionError("key file " + path +
                                         " can be read by others than its owner: chmod 600 it");
  }
  ASSIGN_OR_RETURN(std::string text, ReadFile(path, kMaxFileBytes));
  auto ring = Parse(text, path);
  Wipe(text);
  return ring;
}

std::string KeyRing::Seal(std::string_view secret, std::string_view bound_to) const {
  const Key& key = keys_.front();
  return std::string(kVersion) + key.id + "." +
         absl::Base64Escape(AeadSeal(key.bytes, bound_to, secret));
}

absl::StatusOr<std::string> KeyRing::Open(std::string_view sealed,
                                          std::string_view bound_to) const {
  if (sealed.substr(0, kVersion.size()) != kVersion) return Broken();
  sealed.remove_prefix(kVersion.size());
  const size_t dot = sealed.find('.');
  if (dot == std::string_view::npos) return Broken();
  const Key* found = nullptr;
  for (const Key& key : keys_) {
    if (key.id == sealed.substr(0, dot)) found = &key;
  }
  if (found == nullptr) {
    return absl::NotFoundError("a secret was sealed with a key that is not in the key file");
  }
  std::string raw;
  if (!absl::Base64Unescape(std::string(sealed.substr(dot + 1)), &raw)) return Broken();
  std::optional<std::string> secret = AeadOpen(found->bytes, bound_to, raw);
  if (!secret) return Broken();
  return *std::move(secret);
}

bool KeyRing::IsCurrent(std::string_view sealed) const {
  const std::string front = std::string(kVersion) + keys_.front().id + ".";
  return sealed.substr(0, front.size()) == front;
}

std::string KeyRing::Derive(std::string_view purpose) const {
  return HmacSha256(keys_.front().bytes, "derive " + std::string(purpose));
}

}  // namespace bunker
