// The checks that a request's head must pass before anything else looks at it: each is a way to
// make two parsers disagree about where a request ends or which path it names.
//
// Thread-safe: free functions without state.
#pragma once

#include <string>
#include <string_view>

namespace bunker::controller {

// `head` is everything up to and including the empty line. "" or what is wrong with it, for the
// client: bare line ends, folded or malformed headers, repeated Host, Content-Length or
// Transfer-Encoding, both lengths at once, control bytes, a target that is not a plain path.
std::string CheckRequestHead(std::string_view head);

// The same for a request target alone: origin form, no "//", no dot segments, no %2e, no %00, only
// whole percent escapes, no fragment.
std::string CheckTarget(std::string_view target);

// %XX → bytes. The input must have passed CheckTarget. `plus_is_space` for query text.
std::string PercentDecode(std::string_view text, bool plus_is_space);

}  // namespace bunker::controller
