// The two keyed primitives that everything here seals and signs with.
// Thread-safe: free functions without state.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace bunker {

inline constexpr size_t kAeadKeyBytes = 32;

// HMAC-SHA-256: 32 raw bytes.
std::string HmacSha256(std::string_view key, std::string_view text);

// AES-256-GCM with a fresh nonce: nonce, text, tag. What it is `bound_to` is not in it, and is
// needed to open it. REQUIRES: `key` has kAeadKeyBytes.
std::string AeadSeal(std::string_view key, std::string_view bound_to, std::string_view text);

// Nothing where it was changed, or sealed with another key or bound to something else.
std::optional<std::string> AeadOpen(std::string_view key, std::string_view bound_to,
                                    std::string_view sealed);

// Overwrites a secret before its memory is given back.
void Wipe(std::string& secret);

}  // namespace bunker
