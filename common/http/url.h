// The parts of an http(s) URL, and what makes two URLs one origin.
// Thread-safe: a value and free functions.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace bunker::http {

struct Url {
  std::string scheme;  // "http" | "https"
  std::string host;    // lower case; an IPv6 address stands in brackets
  int port = 0;        // always set: 80 or 443 where the text has none
  std::string text;    // normalised, without a fragment

  std::string HostPort() const { return host + ":" + std::to_string(port); }
  // The host without brackets.
  std::string BareHost() const;
};

// kInvalidArgument for anything but an absolute http or https URL without user info.
absl::StatusOr<Url> ParseUrl(std::string_view text);

// `location` of a redirect, which may be relative, seen from `base`.
absl::StatusOr<Url> ResolveUrl(const Url& base, std::string_view location);

// Scheme, host and port are equal.
bool SameOrigin(const Url& a, const Url& b);

// Bytes outside [A-Za-z0-9-._~] as %XX.
std::string PercentEncode(std::string_view text);

}  // namespace bunker::http
