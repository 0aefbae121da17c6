// [epoch:]upstream[-revision], as deb-version(7) orders them.
#include <algorithm>

#include "common/version/text.h"
#include "common/version/version.h"

namespace bunker {
namespace {

using version::IsAlnum;
using version::IsAlpha;
using version::IsDigit;

struct Parts {
  std::string_view epoch;
  std::string_view upstream;
  std::string_view revision;
};

bool InUpstream(char c) {
  return IsAlnum(c) || c == '.' || c == '+' || c == '-' || c == '~' || c == ':';
}

std::optional<Parts> Split(std::string_view text) {
  Parts parts;
  const size_t colon = text.find(':');
  if (colon != text.npos) {
    parts.epoch = text.substr(0, colon);
    text.remove_prefix(colon + 1);
    if (parts.epoch.empty() || parts.epoch.size() > 10) return std::nullopt;
    for (const char c : parts.epoch) {
      if (!IsDigit(c)) return std::nullopt;
    }
  }
  const size_t hyphen = text.rfind('-');
  parts.upstream = text.substr(0, hyphen);
  if (hyphen != text.npos) {
    parts.revision = text.substr(hyphen + 1);
    if (parts.revision.empty()) return std::nullopt;
  }
  if (parts.upstream.empty() || !IsDigit(parts.upstream[0])) return std::nullopt;
  for (const char c : parts.upstream) {
    if (!InUpstream(c)) return std::nullopt;
  }
  for (const char c : parts.revision) {
    if (!InUpstream(c) || c == ':' || c == '-') return std::nullopt;
  }
  return parts;
}

// A tilde sorts before the end, letters before everything else.
int Weight(std::string_view text, size_t at) {
  if (at >= text.size() || IsDigit(text[at])) return 0;
  const char c = text[at];
  if (c == '~') return -1;
  return IsAlpha(c) ? c : c + 256;
}

int CompareParts(std::string_view a, std::string_view b) {
  while (!a.empty() || !b.empty()) {
    size_t at = 0;
    while ((at < a.size() && !IsDigit(a[at])) || (at < b.size() && !IsDigit(b[at]))) {
      const int difference = Weight(a, at) - Weight(b, at);
      if (difference != 0) return difference < 0 ? -1 : 1;
      ++at;
    }
    a.remove_prefix(std::min(at, a.size()));
    b.remove_prefix(std::min(at, b.size()));
    const int number =
        version::CompareNumbers(version::TakeWhile(&a, IsDigit), version::TakeWhile(&b, IsDigit));
    if (number != 0) return number;
  }
  return 0;
}

}  // namespace

std::optional<int> CompareDebian(std::string_view a, std::string_view b) {
  const std::optional<Parts> left = Split(a);
  const std::optional<Parts> right = Split(b);
  if (!left || !right) return std::nullopt;
  const int epoch = version::CompareNumbers(left->epoch, right->epoch);
  if (epoch != 0) return epoch;
  const int upstream = CompareParts(left->upstream, right->upstream);
  if (upstream != 0) return upstream;
  return CompareParts(left->revision, right->revision);
}

}  // namespace bunker
