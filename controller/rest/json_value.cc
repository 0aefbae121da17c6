#include "controller/rest/json_value.h"

#include <cstdint>
#include <unordered_set>

#include <fmt/format.h>

#include "common/base/utf8.h"

namespace bunker::controller {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

void AppendUtf8(std::string* out, uint32_t code) {
  const auto put = [out](uint32_t byte) { *out += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | (code >> 6));
    put(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    put(0xe0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3f));
    put(0x80 | (code & 0x3f));
  } else {
    put(0xf0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3f));
    put(0x80 | ((code >> 6) & 0x3f));
    put(0x80 | (code & 0x3f));
  }
}

// Recursive descent; recursion is bounded by max_depth.
class Parser {
 public:
  Parser(std::string_view text, const JsonLimits& limits, JsonError* error)
      : text_(text), limits_(limits), error_(error) {}

  bool Run(JsonValue* value) {
    if (text_.size() > limits_.max_bytes) return Fail("the body is too large");
    SkipSpace();
    if (at_ == text_.size()) return Fail("the body is empty; send a JSON object");
    if (!Value(value, 0)) return false;
    SkipSpace();
    if (at_ != text_.size()) return Fail("something follows the JSON value; send one value alone");
    return true;
  }

 private:
  bool Fail(std::string_view message) {
    error_->field = path_;
    error_->message = fmt::format("{} (at byte {})", message, at_);
    return false;
  }

  bool End() const { return at_ >= text_.size(); }
  char Peek() const { return End() ? '\0' : text_[at_]; }

  void SkipSpace() {
    while (!End() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' ||
                      text_[at_] == '\r'))
      ++at_;
  }

  bool Value(JsonValue* value, int depth) {
    if (++nodes_ > limits_.max_nodes)
      return Fail(fmt::format("the body holds more than {} values", limits_.max_nodes));
    if (End()) return Fail("the JSON ends too early");
    switch (text_[at_]) {
      case '{': return Object(value, depth + 1);
      case '[': return Array(value, depth + 1);
      case '"':
        value->kind = JsonValue::Kind::kString;
        return String(&value->text);
      case 't': return Literal("true", JsonValue::Kind::kBool, true, value);
      case 'f': return Literal("false", JsonValue::Kind::kBool, false, value);
      case 'n': return Literal("null", JsonValue::Kind::kNull, false, value);
      default: return Number(value);
    }
  }

  bool Literal(std::string_view word, JsonValue::Kind kind, bool boolean, JsonValue* value) {
    if (text_.substr(at_, word.size()) != word) return Fail("this is not a JSON value");
    at_ += word.size();
    value->kind = kind;
    value->boolean = boolean;
    return true;
  }

  bool Digits() {
    if (!IsDigit(Peek())) return Fail("a digit is missing in this number");
    while (IsDigit(Peek())) ++at_;
    return true;
  }

  bool Number(JsonValue* value) {
    const size_t start = at_;
    if (Peek() == '-') ++at_;
    if (!IsDigit(Peek())) return Fail("this is not a JSON value");
    if (Peek() == '0') {
      ++at_;
      if (IsDigit(Peek())) return Fail("a number may not begin with 0");
    } else if (!Digits()) {
      return false;
    }
    if (Peek() == '.') {
      ++at_;
      if (!Digits()) return false;
    }
    if (Peek() == 'e' || Peek() == 'E') {
      ++at_;
      if (Peek() == '+' || Peek() == '-') ++at_;
      if (!Digits()) return false;
    }
    value->kind = JsonValue::Kind::kNumber;
    value->text = text_.substr(start, at_ - start);
    return true;
  }

  bool Hex4(uint32_t* code) {
    if (text_.size() - at_ < 4) return Fail("\\u needs four hexadecimal digits");
    *code = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = text_[at_];
      uint32_t digit = 0;
      if (IsDigit(c)) digit = static_cast<uint32_t>(c - '0');
      else if (c >= 'a' && c <= 'f') digit = static_cast<uint32_t>(c - 'a' + 10);
      else if (c >= 'A' && c <= 'F') digit = static_cast<uint32_t>(c - 'A' + 10);
      else return Fail("\\u needs four hexadecimal digits");
      *code = *code << 4 | digit;
      ++at_;
    }
    return true;
  }

  bool UnicodeEscape(std::string* out) {
    uint32_t code = 0;
    if (!Hex4(&code)) return false;
    if (code >= 0xdc00 && code <= 0xdfff) return Fail("a lone surrogate is no character");
    if (code >= 0xd800 && code <= 0xdbff) {
      uint32_t low = 0;
      if (text_.substr(at_, 2) != "\\u") return Fail("a lone surrogate is no character");
      at_ += 2;
      if (!Hex4(&low)) return false;
      if (low < 0xdc00 || low > 0xdfff) return Fail("a lone surrogate is no character");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    AppendUtf8(out, code);
    return true;
  }

  bool Escape(std::string* out) {
    ++at_;  // the backslash
    if (End()) return Fail("the JSON ends inside a string");
    switch (text_[at_++]) {
      case '"': *out += '"'; return true;
      case '\\': *out += '\\'; return true;
      case '/': *out += '/'; return true;
      case 'b': *out += '\b'; return true;
      case 'f': *out += '\f'; return true;
      case 'n': *out += '\n'; return true;
      case 'r': *out += '\r'; return true;
      case 't': *out += '\t'; return true;
      case 'u': return UnicodeEscape(out);
      default: return Fail("this escape does not exist in JSON");
    }
  }

  bool String(std::string* out) {
    ++at_;  // the opening quote
    while (!End()) {
      const char c = text_[at_];
      if (c == '"') {
        ++at_;
        return true;
      }
      if (c == '\\') {
        if (!Escape(out)) return false;
        continue;
      }
      if (static_cast<unsigned char>(c) < 0x20)
        return Fail("a control character in a string must be escaped");
      const size_t length = Utf8SequenceLength(text_.substr(at_));
      if (length == 0) return Fail("the text is not valid UTF-8");
      out->append(text_, at_, length);
      at_ += length;
    }
    return Fail("the JSON ends inside a string");
  }

  bool Array(JsonValue* value, int depth) {
    if (depth > limits_.max_depth)
      return Fail(fmt::format("the body is nested deeper than {}", limits_.max_depth));
    value->kind = JsonValue::Kind::kArray;
    ++at_;
    SkipSpace();
    if (Peek() == ']') return ++at_, true;
    const size_t path_size = path_.size();
    while (true) {
      path_ += fmt::format("[{}]", value->items.size());
      value->items.emplace_back();
      SkipSpace();
      if (!Value(&value->items.back(), depth)) return false;
      path_.resize(path_size);
      SkipSpace();
      if (Peek() == ']') return ++at_, true;
      if (Peek() != ',') return Fail("a comma or ] is missing");
      ++at_;
    }
  }

  bool Object(JsonValue* value, int depth) {
    if (depth > limits_.max_depth)
      return Fail(fmt::format("the body is nested deeper than {}", limits_.max_depth));
    value->kind = JsonValue::Kind::kObject;
    ++at_;
    SkipSpace();
    if (Peek() == '}') return ++at_, true;
    const size_t path_size = path_.size();
    std::unordered_set<std::string> keys;
    while (true) {
      SkipSpace();
      if (Peek() != '"') return Fail("a quoted key is missing");
      std::string key;
      if (!String(&key)) return false;
      if (!path_.empty()) path_ += '.';
      path_ += key.substr(0, 128);
      if (!keys.insert(key).second) return Fail("the key occurs twice; send it once");
      SkipSpace();
      if (Peek() != ':') return Fail("a colon is missing after the key");
      ++at_;
      SkipSpace();
      value->members.emplace_back(std::move(key), JsonValue());
      if (!Value(&value->members.back().second, depth)) return false;
      path_.resize(path_size);
      SkipSpace();
      if (Peek() == '}') return ++at_, true;
      if (Peek() != ',') return Fail("a comma or } is missing");
      ++at_;
    }
  }

  const std::string_view text_;
  const JsonLimits& limits_;
  JsonError* const error_;
  size_t at_ = 0;
  size_t nodes_ = 0;
  std::string path_;
};

}  // namespace

bool ParseJson(std::string_view text, const JsonLimits& limits, JsonValue* value,
               JsonError* error) {
  return Parser(text, limits, error).Run(value);
}

const char* JsonKindName(JsonValue::Kind kind) {
  switch (kind) {
    case JsonValue::Kind::kNull: return "null";
    case JsonValue::Kind::kBool: return "a boolean";
    case JsonValue::Kind::kNumber: return "a number";
    case JsonValue::Kind::kString: return "a string";
    case JsonValue::Kind::kArray: return "a list";
    case JsonValue::Kind::kObject: return "an object";
  }
  return "?";
}

void AppendJsonString(std::string* out, std::string_view text) {
  *out += '"';
  while (!text.empty()) {
    const char c = text.front();
    const size_t length = Utf8SequenceLength(text);
    if (length == 0) {
      *out += "\xEF\xBF\xBD";
      text.remove_prefix(1);
      continue;
    }
    if (c == '"' || c == '\\') {
      *out += '\\';
      *out += c;
    } else if (c == '\n') {
      *out += "\\n";
    } else if (c == '\r') {
      *out += "\\r";
    } else if (c == '\t') {
      *out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      fmt::format_to(std::back_inserter(*out), "\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out->append(text.substr(0, length));
    }
    text.remove_prefix(length);
  }
  *out += '"';
}

}  // namespace bunker::controller
