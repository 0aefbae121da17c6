#include "common/base/sha256.h"

#include <openssl/evp.h>

#include "common/base/hex.h"
#include "common/base/log.h"

namespace bunker {

void Sha256::Deleter::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  BUNKER_CHECK(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::Update(const void* data, size_t size) {
  BUNKER_CHECK(EVP_DigestUpdate(context_.get(), data, size) == 1);
}

std::string Sha256::Finish() {
  std::string digest(32, '\0');
  BUNKER_CHECK(EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()),
                                  nullptr) == 1);
  BUNKER_CHECK(EVP_DigestInit_ex(context_.get(), nullptr, nullptr) == 1);
  return digest;
}

std::string Sha256Hex(std::string_view data) {
  Sha256 hash;
  hash.Update(data);
  return HexEncode(hash.Finish());
}

}  // namespace bunker
