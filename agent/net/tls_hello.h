// The server name in the first bytes of a TLS connection. The bytes are a guest's.
//
// Thread-safe: a free function. No input makes it read out of bounds.
#pragma once

#include <string>
#include <string_view>

namespace bunker::agent {

enum class Sniffed { kMore, kName, kRefused };  // more bytes are needed; a name; never one

struct TlsHello {
  Sniffed result = Sniffed::kMore;
  std::string name;  // canonical
};

// `bytes` from the connection's begin on. More than 16 KiB without a whole ClientHello is refused,
// as is one without exactly one server name that is a host name.
TlsHello ReadTlsHello(std::string_view bytes);

// Whether a connection that begins so can only be TLS.
inline bool LooksLikeTls(std::string_view bytes) {
  return !bytes.empty() && bytes[0] == 0x16;
}

}  // namespace bunker::agent
