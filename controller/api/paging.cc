#include "controller/api/paging.h"

#include <openssl/crypto.h>

#include <fmt/format.h>

#include "absl/strings/escaping.h"
#include "common/base/converters.h"
#include "common/seal/aead.h"
#include "controller/api/errors.h"

namespace bunker::controller {
namespace {
constexpr size_t kSignatureBytes = 16;
constexpr size_t kMaxCursorBytes = 1024;
}  // namespace

std::string Cursors::Sign(std::string_view tenant_id, std::string_view list,
                          std::string_view after_id) const {
  std::string text;
  for (const std::string_view part : {tenant_id, list, after_id})
    text += fmt::format("{}:{},", part.size(), part);
  return HmacSha256(secret_, text).substr(0, kSignatureBytes);
}

std::string Cursors::Make(std::string_view tenant_id, std::string_view list,
                          std::string_view after_id) const {
  std::string raw = Sign(tenant_id, list, after_id);
  raw += after_id;
  return absl::WebSafeBase64Escape(raw);
}

absl::StatusOr<PageSpec> Cursors::Parse(std::string_view tenant_id, std::string_view list,
                                        std::optional<uint32_t> limit,
                                        std::optional<std::string> cursor) const {
  PageSpec page;
  page.limit = limit.value_or(kDefaultPageLimit);
  if (page.limit < 1 || page.limit > kMaxPageLimit)
    return ValidationError("limit", fmt::format("must be from 1 to {}", kMaxPageLimit));
  if (!cursor || cursor->empty()) return page;
  std::string raw;
  const bool decoded =
      cursor->size() <= kMaxCursorBytes && absl::WebSafeBase64Unescape(*cursor, &raw);
  if (decoded && raw.size() > kSignatureBytes) {
    page.after_id = raw.substr(kSignatureBytes);
    const std::string wanted = Sign(tenant_id, list, page.after_id);
    if (CRYPTO_memcmp(raw.data(), wanted.data(), kSignatureBytes) == 0) return page;
  }
  return ValidationError("cursor", "was not given by this list; start again without a cursor");
}

}  // namespace bunker::controller
