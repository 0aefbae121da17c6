// What the schemes share: characters without a locale, and numbers of any length.
#pragma once

#include <string_view>

namespace bunker::version {

inline bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}
inline bool IsLower(char c) {
  return c >= 'a' && c <= 'z';
}
inline bool IsAlpha(char c) {
  return IsLower(c) || (c >= 'A' && c <= 'Z');
}
inline bool IsAlnum(char c) {
  return IsDigit(c) || IsAlpha(c);
}

inline int Sign(int value) {
  return value < 0 ? -1 : value > 0 ? 1 : 0;
}

// Digits alone, compared as numbers. The empty text is 0.
inline int CompareNumbers(std::string_view a, std::string_view b) {
  a.remove_prefix(a.find_first_not_of('0') == a.npos ? a.size() : a.find_first_not_of('0'));
  b.remove_prefix(b.find_first_not_of('0') == b.npos ? b.size() : b.find_first_not_of('0'));
  if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
  return Sign(a.compare(b));
}

// Takes the leading characters for which `is` holds off `*text`.
template <typename Is>
std::string_view TakeWhile(std::string_view* text, Is is) {
  size_t count = 0;
  while (count < text->size() && is((*text)[count])) ++count;
  const std::string_view taken = text->substr(0, count);
  text->remove_prefix(count);
  return taken;
}

}  // namespace bunker::version
