// JSON text of flat rows, written and read without a tree in between: what the store's codec is
// made of. Rows are written for every commit and read by the million at a start.
//
// Not thread-safe: one object, one thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace bunker::controller {

// Appends values to a text. Bytes that are not UTF-8 become U+FFFD; a number that JSON has no word
// for (infinite, not a number) becomes null.
class JsonWriter {
 public:
  void Raw(char c) { text_ += c; }
  // `name` is an identifier: nothing in it has to be escaped.
  void Key(std::string_view name) {
    text_ += '"';
    text_ += name;
    text_ += "\":";
  }
  void String(std::string_view value);
  void Null() { text_ += "null"; }
  void Bool(bool value) { text_ += value ? "true" : "false"; }
  void Unsigned(uint64_t value);
  void Signed(int64_t value);
  void Double(double value);

  std::string Take() { return std::move(text_); }
  void Reserve(size_t bytes) { text_.reserve(bytes); }

 private:
  std::string text_;
};

// Reads one value after the other. The first thing that is not as asked for ends it: from then on
// ok() is false, and error() says what was there.
class JsonReader {
 public:
  struct Member {
    std::string_view name;   // as written: identifiers hold no escapes
    std::string_view value;  // its text
  };

  explicit JsonReader(std::string_view text) : text_(text) {}

  bool ok() const { return error_.empty(); }
  const std::string& error() const { return error_; }
  void Fail(std::string_view what);

  // Whether the next value is null, which is then behind it.
  bool TakeNull();
  void Read(std::string* value);
  void Read(bool* value);
  void Read(uint64_t* value);
  void Read(int64_t* value);
  void Read(double* value);

  // An object's members, each value checked for its form but not taken apart.
  std::vector<Member> ReadMembers();
  // The texts of an array's values.
  std::vector<std::string_view> ReadValues();

  // Nothing but white space is left.
  void End();

 private:
  static constexpr int kMaxDepth = 32;

  void SkipSpace();
  bool Take(char c);
  char Peek();
  std::string_view Token();       // the text of a number or a word
  std::string_view StringText();  // between its quotes, escapes as they are
  void SkipValue(int depth);
  template <typename OnMember>
  void Members(int depth, bool named, OnMember on_member);

  const std::string_view text_;
  size_t at_ = 0;
  std::string error_;
};

}  // namespace bunker::controller
