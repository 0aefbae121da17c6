#include "common/seal/aead.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <memory>

#include "common/base/log.h"
#include "common/base/rng.h"

namespace bunker {
namespace {

constexpr size_t kNonceBytes = 12;
constexpr size_t kTagBytes = 16;

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
int Size(std::string_view text) {
  return static_cast<int>(text.size());
}

}  // namespace

void Wipe(std::string& secret) {
  OPENSSL_cleanse(secret.data(), secret.size());
  secret.clear();
}

std::string HmacSha256(std::string_view key, std::string_view text) {
  std::string digest(EVP_MAX_MD_SIZE, '\0');
  unsigned size = 0;
  BUNKER_CHECK(HMAC(EVP_sha256(), key.data(), Size(key), Bytes(text), text.size(), Bytes(digest),
                    &size) != nullptr);
  digest.resize(size);
  return digest;
}

std::string AeadSeal(std::string_view key, std::string_view bound_to, std::string_view text) {
  BUNKER_CHECK(key.size() == kAeadKeyBytes);
  const std::string nonce = SystemRng().Bytes(kNonceBytes);
  std::string sealed(text.size(), '\0');
  std::string tag(kTagBytes, '\0');
  const Cipher cipher(EVP_CIPHER_CTX_new());
  int size = 0;
  int rest = 0;
  BUNKER_CHECK(
      cipher != nullptr &&
      EVP_EncryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, Bytes(key),
                         Bytes(std::string_view(nonce))) == 1 &&
      EVP_EncryptUpdate(cipher.get(), nullptr, &size, Bytes(bound_to), Size(bound_to)) == 1 &&
      EVP_EncryptUpdate(cipher.get(), Bytes(sealed), &size, Bytes(text), Size(text)) == 1 &&
      EVP_EncryptFinal_ex(cipher.get(), Bytes(sealed) + size, &rest) == 1 &&
      EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, tag.data()) == 1);
  return nonce + sealed + tag;
}

std::optional<std::string> AeadOpen(std::string_view key, std::string_view bound_to,
                                    std::string_view sealed) {
  BUNKER_CHECK(key.size() == kAeadKeyBytes);
  if (sealed.size() < kNonceBytes + kTagBytes) return std::nullopt;
  std::string tag(sealed.substr(sealed.size() - kTagBytes));
  const std::string_view nonce = sealed.substr(0, kNonceBytes);
  const std::string_view body = sealed.substr(kNonceBytes, sealed.size() - kNonceBytes - kTagBytes);
  std::string text(body.size(), '\0');
  const Cipher cipher(EVP_CIPHER_CTX_new());
  int size = 0;
  int rest = 0;
  const bool opened =
      cipher != nullptr &&
      EVP_DecryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, Bytes(key), Bytes(nonce)) == 1 &&
      EVP_DecryptUpdate(cipher.get(), nullptr, &size, Bytes(bound_to), Size(bound_to)) == 1 &&
      EVP_DecryptUpdate(cipher.get(), Bytes(text), &size, Bytes(body), Size(body)) == 1 &&
      EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, tag.data()) == 1 &&
      EVP_DecryptFinal_ex(cipher.get(), Bytes(text) + size, &rest) == 1;
  if (opened) return text;
  Wipe(text);
  return std::nullopt;
}

}  // namespace bunker
