// [epoch:]version[-release]. Each is cut into runs of digits and of letters; what separates them
// counts for nothing, but for the tilde, which sorts before the end, and the caret, which sorts
// right after it.
#include "common/version/text.h"
#include "common/version/version.h"

namespace bunker {
namespace {

using version::IsAlnum;
using version::IsAlpha;
using version::IsDigit;

bool Separates(char c) {
  return !IsAlnum(c) && c != '~' && c != '^';
}

// Nothing where the text is not decided by a run of its own kind.
int CompareSegments(std::string_view* a, std::string_view* b) {
  const bool number = IsDigit((*a)[0]);
  const auto is = number ? &IsDigit : &IsAlpha;
  const std::string_view left = version::TakeWhile(a, is);
  const std::string_view right = version::TakeWhile(b, is);
  // A number is newer than letters.
  if (right.empty()) return number ? 1 : -1;
  return number ? version::CompareNumbers(left, right) : version::Sign(left.compare(right));
}

int CompareLabels(std::string_view a, std::string_view b) {
  while (!a.empty() || !b.empty()) {
    version::TakeWhile(&a, Separates);
    version::TakeWhile(&b, Separates);
    const char left = a.empty() ? '\0' : a[0];
    const char right = b.empty() ? '\0' : b[0];
    if (left == '~' || right == '~') {
      if (left != right) return left == '~' ? -1 : 1;
    } else if (left == '^' || right == '^') {
      if (left == '\0') return -1;
      if (right == '\0') return 1;
      if (left != right) return left == '^' ? -1 : 1;
    } else if (left == '\0' || right == '\0') {
      break;
    } else {
      const int segment = CompareSegments(&a, &b);
      if (segment != 0) return segment;
      continue;
    }
    a.remove_prefix(1);
    b.remove_prefix(1);
  }
  if (a.empty() && b.empty()) return 0;
  return a.empty() ? -1 : 1;
}

struct Parts {
  std::string_view epoch = "0";
  std::string_view version;
  std::optional<std::string_view> release;
};

std::optional<Parts> Split(std::string_view text) {
  Parts parts;
  std::string_view rest = text;
  const std::string_view digits = version::TakeWhile(&rest, IsDigit);
  if (!rest.empty() && rest[0] == ':') {
    if (!digits.empty()) parts.epoch = digits;
    text = rest.substr(1);
  }
  const size_t hyphen = text.rfind('-');
  parts.version = text.substr(0, hyphen);
  if (hyphen != text.npos) parts.release = text.substr(hyphen + 1);
  if (parts.version.empty()) return std::nullopt;
  for (const char c : text) {
    if (c <= ' ' || c == 0x7f) return std::nullopt;
  }
  return parts;
}

}  // namespace

std::optional<int> CompareRpm(std::string_view a, std::string_view b) {
  const std::optional<Parts> left = Split(a);
  const std::optional<Parts> right = Split(b);
  if (!left || !right) return std::nullopt;
  const int epoch = version::CompareNumbers(left->epoch, right->epoch);
  if (epoch != 0) return epoch;
  const int version = CompareLabels(left->version, right->version);
  if (version != 0) return version;
  if (left->release.has_value() != right->release.has_value()) return left->release ? 1 : -1;
  return left->release ? CompareLabels(*left->release, *right->release) : 0;
}

}  // namespace bunker
