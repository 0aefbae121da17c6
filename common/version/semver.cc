// MAJOR.MINOR.PATCH[-prerelease][+build], as npm reads it: a leading v is forgiven, numbers
// have no leading zeros and stay below 2^53, the build counts for nothing.
#include "common/version/text.h"
#include "common/version/version.h"

namespace bunker {
namespace {

using version::IsAlnum;
using version::IsDigit;

constexpr size_t kMaxSemverBytes = 256;
constexpr std::string_view kMaxNumber = "9007199254740991";

struct Parts {
  std::string_view numbers[3];
  std::string_view prerelease;
};

bool IsNumber(std::string_view text) {
  if (text.empty() || (text.size() > 1 && text[0] == '0')) return false;
  for (const char c : text) {
    if (!IsDigit(c)) return false;
  }
  return true;
}

bool AllDigits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == text.npos;
}

bool AreIdentifiers(std::string_view text, bool strict_numbers) {
  while (true) {
    const size_t dot = text.find('.');
    const std::string_view one = text.substr(0, dot);
    if (one.empty()) return false;
    for (const char c : one) {
      if (!IsAlnum(c) && c != '-') return false;
    }
    if (strict_numbers && AllDigits(one) && !IsNumber(one)) return false;
    if (dot == text.npos) return true;
    text.remove_prefix(dot + 1);
  }
}

std::optional<Parts> Split(std::string_view text) {
  if (text.size() > kMaxSemverBytes) return std::nullopt;
  if (!text.empty() && text[0] == 'v') text.remove_prefix(1);
  Parts parts;
  const size_t plus = text.find('+');
  if (plus != text.npos) {
    if (!AreIdentifiers(text.substr(plus + 1), false)) return std::nullopt;
    text = text.substr(0, plus);
  }
  const size_t hyphen = text.find('-');
  if (hyphen != text.npos) {
    parts.prerelease = text.substr(hyphen + 1);
    if (!AreIdentifiers(parts.prerelease, true)) return std::nullopt;
    text = text.substr(0, hyphen);
  }
  for (int i = 0; i < 3; ++i) {
    const size_t dot = text.find('.');
    if ((dot == text.npos) != (i == 2)) return std::nullopt;
    parts.numbers[i] = text.substr(0, dot);
    if (!IsNumber(parts.numbers[i]) || version::CompareNumbers(parts.numbers[i], kMaxNumber) > 0) {
      return std::nullopt;
    }
    text.remove_prefix(dot == text.npos ? text.size() : dot + 1);
  }
  return parts;
}

// Numbers are older than words, and fewer identifiers than more.
int ComparePrereleases(std::string_view a, std::string_view b) {
  if (a.empty() || b.empty()) return a.empty() == b.empty() ? 0 : a.empty() ? 1 : -1;
  while (!a.empty() && !b.empty()) {
    const size_t left_dot = a.find('.');
    const size_t right_dot = b.find('.');
    const std::string_view left = a.substr(0, left_dot);
    const std::string_view right = b.substr(0, right_dot);
    const bool left_number = AllDigits(left);
    const bool right_number = AllDigits(right);
    if (left_number != right_number) return left_number ? -1 : 1;
    const int order =
        left_number ? version::CompareNumbers(left, right) : version::Sign(left.compare(right));
    if (order != 0) return order;
    a.remove_prefix(left_dot == a.npos ? a.size() : left_dot + 1);
    b.remove_prefix(right_dot == b.npos ? b.size() : right_dot + 1);
  }
  return a.empty() == b.empty() ? 0 : a.empty() ? -1 : 1;
}

}  // namespace

std::optional<int> CompareSemver(std::string_view a, std::string_view b) {
  const std::optional<Parts> left = Split(a);
  const std::optional<Parts> right = Split(b);
  if (!left || !right) return std::nullopt;
  for (int i = 0; i < 3; ++i) {
    const int order = version::CompareNumbers(left->numbers[i], right->numbers[i]);
    if (order != 0) return order;
  }
  return ComparePrereleases(left->prerelease, right->prerelease);
}

}  // namespace bunker
