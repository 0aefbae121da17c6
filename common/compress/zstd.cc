#include "common/compress/zstd.h"

#include <zstd.h>

#include "absl/status/status.h"
#include "common/base/log.h"

namespace bunker {
namespace {

constexpr int kLevel = 6;

}  // namespace

std::string ZstdCompress(std::string_view text) {
  std::string bytes(ZSTD_compressBound(text.size()), '\0');
  const size_t size = ZSTD_compress(bytes.data(), bytes.size(), text.data(), text.size(), kLevel);
  BUNKER_CHECK(ZSTD_isError(size) == 0);  // out of memory alone
  bytes.resize(size);
  return bytes;
}

absl::StatusOr<std::string> ZstdDecompress(std::string_view bytes, size_t max_bytes) {
  const unsigned long long size = ZSTD_getFrameContentSize(bytes.data(), bytes.size());
  if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN)
    return absl::DataLossError("not a zstd frame that tells its size");
  if (size > max_bytes) return absl::ResourceExhaustedError("decompressed it would be too large");
  std::string text(static_cast<size_t>(size), '\0');
  const size_t got = ZSTD_decompress(text.data(), text.size(), bytes.data(), bytes.size());
  if (ZSTD_isError(got) != 0 || got != text.size())
    return absl::DataLossError("a damaged zstd frame");
  return text;
}

}  // namespace bunker
