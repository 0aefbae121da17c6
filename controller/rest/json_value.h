// A strict reader of RFC 8259 JSON into a small tree, and the escaping that the writer needs.
// Nothing is tolerated that the RFC does not have; duplicate keys are refused; depth, nodes and
// size are bounded, so that hostile text costs time linear in its length.
//
// Thread-safe: free functions without state.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bunker::controller {

struct JsonLimits {
  int max_depth = 32;
  size_t max_nodes = 10'000;
  size_t max_bytes = 8u << 20;
};

struct JsonValue {
  enum class Kind { kNull, kBool, kNumber, kString, kArray, kObject };
  Kind kind = Kind::kNull;
  bool boolean = false;
  std::string text;  // the string's value, or the number's literal
  std::vector<JsonValue> items;
  std::vector<std::pair<std::string, JsonValue>> members;
};

// What is wrong with the text: where it can be named, `field` is the path ("a.b[2]").
struct JsonError {
  std::string field;
  std::string message;
};

// True and `*value`, or false and `*error`.
bool ParseJson(std::string_view text, const JsonLimits& limits, JsonValue* value, JsonError* error);

// "a JSON string", …: what a message calls the kind.
const char* JsonKindName(JsonValue::Kind kind);

// Appends `text` as a quoted JSON string. Invalid UTF-8 becomes U+FFFD.
void AppendJsonString(std::string* out, std::string_view text);

}  // namespace bunker::controller
