#include "common/seal/key_ring.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/stat.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "absl/strings/escaping.h"
#include "common/base/converters.h"
#include "common/base/files.h"
#include "common/base/hex.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"

namespace bunker {
namespace {

constexpr size_t kKeyBytes = 32;
constexpr size_t kNonceBytes = 12;
constexpr size_t kTagBytes = 16;
constexpr size_t kMaxFileBytes = 64u << 10;
constexpr size_t kMaxKeys = 16;
constexpr std::string_view kVersion = "1.";

struct CipherDeleter {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Cipher = std::unique_ptr<EVP_CIPHER_CTX, CipherDeleter>;

unsigned char* Bytes(std::string& text) {
  return reinterpret_cast<unsigned char*>(text.data());
}
const unsigned char* Bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

std::string Hmac(std::string_view key, std::string_view text) {
  std::string digest(EVP_MAX_MD_SIZE, '\0');
  unsigned size = 0;
  BUNKER_CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), Bytes(text),
                    text.size(), Bytes(digest), &size) != nullptr);
  digest.resize(size);
  return digest;
}

absl::Status WrongLine(std::string_view origin, size_t line, std::string_view why) {
  return absl::InvalidArgumentError("key file " + std::string(origin) + ", line " +
                                    std::to_string(line) + ": " + std::string(why));
}

absl::Status Broken() {
  return absl::DataLossError("a sealed secret was changed, or belongs to another row");
}

}  // namespace

void Wipe(std::string& secret) {
  OPENSSL_cleanse(secret.data(), secret.size());
  secret.clear();
}

KeyRing::~KeyRing() {
  for (Key& key : keys_) Wipe(key.bytes);
}

std::string KeyRing::NewKey() {
  return HexEncode(SystemRng().Bytes(kKeyBytes));
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
    if (!HexDecode(std::string(line), &key.bytes) || key.bytes.size() != kKeyBytes)
      return WrongLine(origin, number, "a key is 64 hex digits");
    if (ring.keys_.size() == kMaxKeys)
      return WrongLine(origin, number, "more than 16 keys: remove those that nothing needs");
    key.id = HexEncode(Hmac(key.bytes, "key id")).substr(0, 8);
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
  std::string nonce = SystemRng().Bytes(kNonceBytes);
  std::string text(secret.size(), '\0');
  std::string tag(kTagBytes, '\0');
  const Cipher cipher(EVP_CIPHER_CTX_new());
  int size = 0;
  int rest = 0;
  BUNKER_CHECK(cipher != nullptr &&
               EVP_EncryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, Bytes(key.bytes),
                                  Bytes(nonce)) == 1 &&
               EVP_EncryptUpdate(cipher.get(), nullptr, &size, Bytes(bound_to),
                                 static_cast<int>(bound_to.size())) == 1 &&
               EVP_EncryptUpdate(cipher.get(), Bytes(text), &size, Bytes(secret),
                                 static_cast<int>(secret.size())) == 1 &&
               EVP_EncryptFinal_ex(cipher.get(), Bytes(text) + size, &rest) == 1 &&
               EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, tag.data()) == 1);
  return std::string(kVersion) + key.id + "." + absl::Base64Escape(nonce + text + tag);
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
  if (!absl::Base64Unescape(std::string(sealed.substr(dot + 1)), &raw) ||
      raw.size() < kNonceBytes + kTagBytes) {
    return Broken();
  }
  std::string tag = raw.substr(raw.size() - kTagBytes);
  const std::string nonce = raw.substr(0, kNonceBytes);
  const std::string text = raw.substr(kNonceBytes, raw.size() - kNonceBytes - kTagBytes);
  std::string secret(text.size(), '\0');
  const Cipher cipher(EVP_CIPHER_CTX_new());
  int size = 0;
  int rest = 0;
  const bool opened =
      cipher != nullptr &&
      EVP_DecryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, Bytes(found->bytes),
                         Bytes(nonce)) == 1 &&
      EVP_DecryptUpdate(cipher.get(), nullptr, &size, Bytes(bound_to),
                        static_cast<int>(bound_to.size())) == 1 &&
      EVP_DecryptUpdate(cipher.get(), Bytes(secret), &size, Bytes(text),
                        static_cast<int>(text.size())) == 1 &&
      EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, tag.data()) == 1 &&
      EVP_DecryptFinal_ex(cipher.get(), Bytes(secret) + size, &rest) == 1;
  if (opened) return secret;
  Wipe(secret);
  return Broken();
}

bool KeyRing::IsCurrent(std::string_view sealed) const {
  const std::string front = std::string(kVersion) + keys_.front().id + ".";
  return sealed.substr(0, front.size()) == front;
}

std::string KeyRing::Derive(std::string_view purpose) const {
  return Hmac(keys_.front().bytes, "derive " + std::string(purpose));
}

}  // namespace bunker
