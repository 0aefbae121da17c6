// UTF-8 (RFC 3629): overlong forms, surrogates and what lies beyond U+10FFFF are no characters.
//
// Thread-safe: free functions without state.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace bunker {

// The length of the well-formed sequence at the start of `text`; 0 where there is none.
size_t Utf8SequenceLength(std::string_view text);

// Every byte belongs to a well-formed sequence.
bool IsUtf8(std::string_view text);

// Each byte that belongs to none becomes U+FFFD.
std::string ToValidUtf8(std::string text);

}  // namespace bunker
