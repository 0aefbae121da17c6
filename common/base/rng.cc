#include "common/base/rng.h"

#include <sys/random.h>

#include "common/base/log.h"

namespace bunker {

std::string Rng::Bytes(size_t count) {
  std::string bytes;
  bytes.reserve(count);
  while (bytes.size() < count) {
    uint64_t word = Next();
    for (int i = 0; i < 8 && bytes.size() < count; ++i, word >>= 8)
      bytes += static_cast<char>(word & 0xff);
  }
  return bytes;
}

uint64_t SystemRng::Next() {
  uint64_t word = 0;
  BUNKER_CHECK(::getrandom(&word, sizeof word, 0) == static_cast<ssize_t>(sizeof word));
  return word;
}

std::string RandomBase62(size_t length) {
  static constexpr char kAlphabet[] =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  SystemRng rng;
  std::string text;
  while (text.size() < length) {
    for (const char c : rng.Bytes(64)) {
      // 248 = 4 * 62: rejecting the rest keeps the draw uniform.
      const auto byte = static_cast<unsigned char>(c);
      if (byte < 248 && text.size() < length) text += kAlphabet[byte % 62];
    }
  }
  return text;
}

}  // namespace bunker
