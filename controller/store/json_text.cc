#include "controller/store/json_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "common/base/utf8.h"

namespace bunker::controller {
namespace {

bool IsPlain(char c) {
  return static_cast<unsigned char>(c) >= 0x20 && c != '"' && c != '\\';
}

void AppendUtf8(uint32_t code, std::string* out) {
  if (code < 0x80) {
    *out += static_cast<char>(code);
    return;
  }
  const int tail = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  const uint32_t lead[] = {0, 0xc0, 0xe0, 0xf0};
  *out += static_cast<char>(lead[tail] | (code >> (6 * tail)));
  for (int i = tail - 1; i >= 0; --i) *out += static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3f));
}

// Four hex digits at `at`; false where they are not.
bool HexAt(std::string_view text, size_t at, uint32_t* code) {
  if (at + 4 > text.size()) return false;
  const auto end = text.data() + at + 4;
  const auto [stop, error] = std::from_chars(text.data() + at, end, *code, 16);
  return error == std::errc() && stop == end;
}

// Of the escape behind the backslash at `at`, the character; moves `at` behind it.
bool Unescape(std::string_view text, size_t* at, std::string* out) {
  constexpr std::string_view kNames = "\"\\/bfnrt";
  constexpr std::string_view kValues = "\"\\/\b\f\n\r\t";
  if (*at + 1 >= text.size()) return false;
  const char name = text[*at + 1];
  if (name != 'u') {
    const size_t index = kNames.find(name);
    if (index == std::string_view::npos) return false;
    *out += kValues[index];
    *at += 2;
    return true;
  }
  uint32_t code = 0;
  if (!HexAt(text, *at + 2, &code)) return false;
  *at += 6;
  if (code >= 0xd800 && code < 0xdc00) {
    uint32_t low = 0;
    const bool pair = text.substr(*at, 2) == "\\u" && HexAt(text, *at + 2, &low);
    if (!pair || low < 0xdc00 || low >= 0xe000) return false;
    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    *at += 6;
  } else if (code >= 0xdc00 && code < 0xe000) {
    return false;
  }
  AppendUtf8(code, out);
  return true;
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

size_t CountDigits(std::string_view text, size_t from) {
  size_t at = from;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') ++at;
  return at - from;
}

// RFC 8259, section 6.
bool IsNumber(std::string_view text) {
  size_t at = !text.empty() && text[0] == '-' ? 1 : 0;
  const size_t whole = CountDigits(text, at);
  if (whole == 0 || (whole > 1 && text[at] == '0')) return false;
  at += whole;
  if (at < text.size() && text[at] == '.') {
    const size_t part = CountDigits(text, at + 1);
    if (part == 0) return false;
    at += 1 + part;
  }
  if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    ++at;
    if (at < text.size() && (text[at] == '+' || text[at] == '-')) ++at;
    const size_t exponent = CountDigits(text, at);
    if (exponent == 0) return false;
    at += exponent;
  }
  return at == text.size();
}

template <typename T>
void AppendNumber(T value, std::string* text) {
  char buffer[32];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  text->append(buffer, end);
}

template <typename T>
bool ParseNumber(std::string_view token, T* value) {
  if (!IsNumber(token)) return false;  // from_chars() knows more than JSON does
  const auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), *value);
  return error == std::errc() && end == token.data() + token.size();
}

}  // namespace

void JsonWriter::String(std::string_view value) {
  std::string replaced;
  if (!IsAscii(value) && !IsUtf8(value)) {
    replaced = ToValidUtf8(std::string(value));
    value = replaced;
  }
  text_ += '"';
  size_t from = 0;
  for (size_t i = 0; i < value.size(); ++i) {
    if (IsPlain(value[i])) continue;
    text_ += value.substr(from, i - from);
    from = i + 1;
    const char c = value[i];
    if (c == '"' || c == '\\') {
      text_ += '\\';
      text_ += c;
    } else {
      text_ += "\\u00";
      text_ += "0123456789abcdef"[c >> 4];
      text_ += "0123456789abcdef"[c & 15];
    }
  }
  text_ += value.substr(from);
  text_ += '"';
}

void JsonWriter::Unsigned(uint64_t value) {
  AppendNumber(value, &text_);
}
void JsonWriter::Signed(int64_t value) {
  AppendNumber(value, &text_);
}
void JsonWriter::Double(double value) {
  if (!std::isfinite(value)) return Null();
  AppendNumber(value, &text_);
}

void JsonReader::Fail(std::string_view what) {
  if (error_.empty()) error_ = std::string(what) + " at byte " + std::to_string(at_);
}

void JsonReader::SkipSpace() {
  while (at_ < text_.size() &&
         (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) {
    ++at_;
  }
}

char JsonReader::Peek() {
  SkipSpace();
  return at_ < text_.size() ? text_[at_] : '\0';
}

bool JsonReader::Take(char c) {
  if (Peek() != c) return false;
  ++at_;
  return true;
}

std::string_view JsonReader::Token() {
  SkipSpace();
  const size_t from = at_;
  while (at_ < text_.size() &&
         std::string_view(",:]}[{\" \n\r\t").find(text_[at_]) == std::string_view::npos) {
    ++at_;
  }
  return text_.substr(from, at_ - from);
}

bool JsonReader::TakeNull() {
  if (Peek() != 'n') return false;
  const size_t from = at_;
  if (Token() == "null") return true;
  at_ = from;
  return false;
}

std::string_view JsonReader::StringText() {
  if (!Take('"')) {
    Fail("no string");
    return "";
  }
  const size_t from = at_;
  while (at_ < text_.size() && text_[at_] != '"') {
    if (static_cast<unsigned char>(text_[at_]) < 0x20) break;
    if (text_[at_] != '\\') {
      ++at_;
      continue;
    }
    std::string ignored;
    if (Unescape(text_, &at_, &ignored)) continue;
    Fail("an escape that is none");
    return "";
  }
  if (at_ >= text_.size() || text_[at_] != '"') {
    Fail("a string without an end");
    return "";
  }
  return text_.substr(from, at_++ - from);
}

void JsonReader::Read(std::string* value) {
  const std::string_view text = StringText();
  if (!IsAscii(text) && !IsUtf8(text)) return Fail("bytes that are no UTF-8");
  const size_t first = text.find('\\');
  if (first == std::string_view::npos) {
    *value = text;
    return;
  }
  *value = text.substr(0, first);
  for (size_t at = first; at < text.size();) {
    if (text[at] != '\\') {
      *value += text[at++];
    } else if (!Unescape(text, &at, value)) {
      return Fail("an escape that is none");
    }
  }
}

void JsonReader::Read(bool* value) {
  const std::string_view token = Token();
  *value = token == "true";
  if (!*value && token != "false") Fail("no true or false");
}

void JsonReader::Read(uint64_t* value) {
  if (!ParseNumber(Token(), value)) Fail("no whole number");
}
void JsonReader::Read(int64_t* value) {
  if (!ParseNumber(Token(), value)) Fail("no whole number");
}
void JsonReader::Read(double* value) {
  if (!ParseNumber(Token(), value)) Fail("no number");
}

// Steps through an object (`named`) or an array; `on_member` gets each name and value's text.
template <typename OnMember>
void JsonReader::Members(int depth, bool named, OnMember on_member) {
  if (depth > kMaxDepth) return Fail("too deep");
  if (!Take(named ? '{' : '[')) return Fail(named ? "no object" : "no array");
  const char close = named ? '}' : ']';
  if (Take(close)) return;
  while (ok()) {
    std::string_view name;
    if (named) {
      name = StringText();
      if (ok() && !Take(':')) Fail("a name without a value");
    }
    SkipSpace();
    const size_t from = at_;
    SkipValue(depth);
    if (!ok()) return;
    on_member(name, text_.substr(from, at_ - from));
    if (Take(close)) return;
    if (!Take(',')) Fail("values without a comma between");
  }
}

void JsonReader::SkipValue(int depth) {
  const auto ignore = [](std::string_view, std::string_view) {};
  switch (Peek()) {
    case '{':
      return Members(depth + 1, /*named=*/true, ignore);
    case '[':
      return Members(depth + 1, /*named=*/false, ignore);
    case '"':
      StringText();
      return;
    default:
      break;
  }
  const std::string_view token = Token();
  double number = 0;
  if (token != "null" && token != "true" && token != "false" && !ParseNumber(token, &number)) {
    Fail("no value");
  }
}

std::vector<JsonReader::Member> JsonReader::ReadMembers() {
  std::vector<Member> members;
  members.reserve(64);
  Members(0, /*named=*/true, [&](std::string_view name, std::string_view value) {
    members.push_back({name, value});
  });
  return members;
}

std::vector<std::string_view> JsonReader::ReadValues() {
  std::vector<std::string_view> values;
  Members(0, /*named=*/false,
          [&](std::string_view, std::string_view value) { values.push_back(value); });
  return values;
}

void JsonReader::End() {
  SkipSpace();
  if (ok() && at_ < text_.size()) Fail("more than one value");
}

}  // namespace bunker::controller
