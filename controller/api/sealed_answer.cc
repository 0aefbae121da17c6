#include "controller/api/sealed_answer.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <memory>

#include "common/base/log.h"
#include "common/base/rng.h"

namespace bunker::controller {
namespace {

constexpr size_t kNonceBytes = 12;
constexpr size_t kTagBytes = 16;
constexpr size_t kKeyBytes = 32;

struct Free {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, Free>;

const unsigned char* Bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}
unsigned char* Bytes(std::string& text) {
  return reinterpret_cast<unsigned char*>(text.data());
}

// The secret has 256 bits of its own, so one HMAC is derivation enough.
std::string KeyFrom(std::string_view secret) {
  constexpr std::string_view kPurpose = "bunker: a stored answer that holds a secret";
  std::string key(kKeyBytes, '\0');
  unsigned size = 0;
  BUNKER_CHECK(HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()), Bytes(kPurpose),
                    kPurpose.size(), Bytes(key), &size) != nullptr);
  BUNKER_CHECK(size == kKeyBytes);
  return key;
}

}  // namespace

std::string SealAnswer(std::string_view secret, std::string_view context, std::string_view answer) {
  SystemRng rng;
  const std::string key = KeyFrom(secret);
  std::string sealed = rng.Bytes(kNonceBytes);
  std::string text(answer.size(), '\0');
  std::string tag(kTagBytes, '\0');
  const CipherContext cipher(EVP_CIPHER_CTX_new());
  int size = 0;
  BUNKER_CHECK(EVP_EncryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr,
                                  Bytes(std::string_view(key)),
                                  Bytes(std::string_view(sealed))) == 1);
  BUNKER_CHECK(EVP_EncryptUpdate(cipher.get(), nullptr, &size, Bytes(context),
                                 static_cast<int>(context.size())) == 1);
  BUNKER_CHECK(EVP_EncryptUpdate(cipher.get(), Bytes(text), &size, Bytes(answer),
                                 static_cast<int>(answer.size())) == 1);
  BUNKER_CHECK(EVP_EncryptFinal_ex(cipher.get(), Bytes(text) + size, &size) == 1);
  BUNKER_CHECK(EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, tag.data()) == 1);
  return sealed + tag + text;
}

absl::StatusOr<std::string> OpenAnswer(std::string_view secret, std::string_view context,
                                       std::string_view sealed) {
  const absl::Status refused = absl::PermissionDeniedError("sealed with another secret");
  if (sealed.size() < kNonceBytes + kTagBytes) return refused;
  const std::string key = KeyFrom(secret);
  std::string tag(sealed.substr(kNonceBytes, kTagBytes));
  const std::string_view body = sealed.substr(kNonceBytes + kTagBytes);
  std::string text(body.size(), '\0');
  const CipherContext cipher(EVP_CIPHER_CTX_new());
  int size = 0;
  const bool opened =
      EVP_DecryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, Bytes(std::string_view(key)),
                         Bytes(sealed)) == 1 &&
      EVP_DecryptUpdate(cipher.get(), nullptr, &size, Bytes(context),
                        static_cast<int>(context.size())) == 1 &&
      EVP_DecryptUpdate(cipher.get(), Bytes(text), &size, Bytes(body),
                        static_cast<int>(body.size())) == 1 &&
      EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, tag.data()) == 1 &&
      EVP_DecryptFinal_ex(cipher.get(), Bytes(text) + size, &size) == 1;
  if (!opened) return refused;
  return text;
}

}  // namespace bunker::controller
