#include "controller/rest/json_value.h"

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace bunker::controller {
namespace {

bool Accepts(const std::string& text) {
  JsonValue value;
  JsonError error;
  return ParseJson(text, JsonLimits(), &value, &error);
}

JsonError ErrorOf(const std::string& text, const JsonLimits& limits = JsonLimits()) {
  JsonValue value;
  JsonError error;
  EXPECT_FALSE(ParseJson(text, limits, &value, &error)) << text;
  return error;
}

// What RFC 8259 has, one case a line.
TEST(JsonValueTest, AcceptsEverythingThatTheRfcHas) {
  const std::vector<std::string> good = {
      "[]", "{}", "null", "true", "false", "0", "-0", "-1", "42", "\"\"", "\" \"", " [] ",
      "\t{ }\r\n", "[null]", "[1,2,3]", "[[]]", "[{}]", "{\"\":0}", "{\"a\":{}}",
      "{\"a\":1,\"b\":2}", "{\"a\":[1,[2,[3]]]}", "0.1", "-0.1", "1.0", "1e1", "1E1", "1e+1",
      "1e-1", "0e0", "0e+1", "0.1e2", "-1.5E-7", "123456789012345678901234567890",
      "\"a\"", "\"\\\"\"", "\"\\\\\"", "\"\\/\"", "\"\\b\\f\\n\\r\\t\"", "\"\\u0000\"",
      "\"\\u0041\"", "\"\\u00e9\"", "\"\\uD834\\uDD1E\"", "\"\\udbff\\udfff\"", "\"\xC3\xA9\"",
      "\"\xE2\x82\xAC\"", "\"\xF0\x9D\x84\x9E\"", "\"\xF4\x8F\xBF\xBF\"", "\"\x7f\"",
      "\"\xEF\xBB\xBF\"", "\"\xEE\x80\x80\"", "[1 , 2]", "{\"a\" : 1 , \"b\" : 2}",
      "\"/* no comment */\"", "[\"\\u2028\"]", "\"\xE2\x80\xA8\"", "[true,false,null]",
  };
  for (const std::string& text : good) EXPECT_TRUE(Accepts(text)) << text;
}

TEST(JsonValueTest, RefusesEverythingElse) {
  const std::vector<std::string> bad = {
      "", " ", "[", "]", "{", "}", "[1", "[1,", "[1,]", "[,1]", "[,]", "[1,,2]", "[1 2]", "[1}",
      "{]", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,", "{\"a\":1,}", "{,}", "{\"a\" 1}",
      "{a:1}", "{'a':1}", "{1:1}", "{null:1}", "{\"a\":1 \"b\":2}", "{\"a\":1}}", "{\"a\":1} 2",
      "[] []", "nul", "nulll", "NULL", "True", "tru", "fals", "undefined", "NaN", "Infinity",
      "-Infinity", "+1", "01", "-01", "00", "1.", ".1", "-.1", "1.e1", "1e", "1e+", "0x10", "1_0",
      "--1", "-", "- 1", "1 e1", "0.1.2", "1a", "'a'", "\"", "\"a", "\"\\\"", "\"\\a\"",
      "\"\\x41\"", "\"\\U0041\"", "\"\\u\"", "\"\\u004\"", "\"\\u00G0\"", "\"\\u 041\"",
      "\"\\uD800\"", "\"\\uD800\\n\"", "\"\\uD800\\u0041\"", "\"\\uDC00\"", "\"\\uD800\\uD800\"",
      "\"\t\"", "\"\n\"", std::string("\"\0\"", 3), "\"\x1f\"", "// x\n1", "/* x */ 1", "1 // x",
      "# x\n1", "\"\\'\"", "\xEF\xBB\xBF{}", "{}\x0c", "[1]\x0b", "\"\xFF\"", "\"\xC3\"",
      "\"\xC3(\"", "\"\xC0\xAF\"", "\"\xE0\x80\xAF\"", "\"\xF0\x80\x80\xAF\"",
      "\"\xED\xA0\x80\"", "\"\xED\xBF\xBF\"", "\"\xF4\x90\x80\x80\"", "\"\xF8\x88\x80\x80\x80\"",
      "\"\x80\"", "\"\xE2\x82\"", "\xC3\xA9", std::string("[1]\0", 4), "[\"a\":1]", "{\"a\",1}",
      "{\"a\"::1}", "{\"a\":1,,\"b\":2}", "[1:2]", "{\"\xFF\":1}", "*", "[*]", "<a/>", "a",
  };
  for (const std::string& text : bad) EXPECT_FALSE(Accepts(text)) << text;
}

TEST(JsonValueTest, DecodesEscapes) {
  JsonValue value;
  JsonError error;
  ASSERT_TRUE(
      ParseJson("\"\\u0041\\u00e9\\u20ac\\uD834\\uDD1E\\n\"", JsonLimits(), &value, &error));
  EXPECT_EQ(value.text, "A\xC3\xA9\xE2\x82\xAC\xF0\x9D\x84\x9E\n");
}

TEST(JsonValueTest, DuplicateKeysAreNamed) {
  EXPECT_EQ(ErrorOf("{\"a\":{\"b\":1,\"b\":2}}").field, "a.b");
  EXPECT_EQ(ErrorOf("{\"a\":1,\"\\u0061\":2}").field, "a");
  EXPECT_EQ(ErrorOf("{\"x\":[{\"y\":1},{\"y\":1,\"y\":1}]}").field, "x[1].y");
}

TEST(JsonValueTest, DepthNodesAndBytesAreBounded) {
  const auto nested = [](size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_TRUE(Accepts(nested(32)));
  EXPECT_FALSE(Accepts(nested(33)));
  EXPECT_FALSE(Accepts(std::string(8 << 20, '[')));  // at once, and without recursing into it
  std::string many = "[0";
  for (int i = 0; i < 9'998; ++i) many += ",0";
  EXPECT_TRUE(Accepts(many + "]"));
  EXPECT_FALSE(Accepts(many + ",0]"));
  JsonLimits limits;
  limits.max_bytes = 4;
  EXPECT_EQ(ErrorOf("[1,2]", limits).message.substr(0, 22), "the body is too large ");
}

TEST(JsonValueTest, WritesStringsThatReadBack) {
  std::string out;
  AppendJsonString(&out, std::string("a\"\\\n\r\t\x01\x7f\0\xC3\xA9/", 12));
  EXPECT_EQ(out, "\"a\\\"\\\\\\n\\r\\t\\u0001\\u007f\\u0000\xC3\xA9/\"");
  JsonValue value;
  JsonError error;
  ASSERT_TRUE(ParseJson(out, JsonLimits(), &value, &error));
  EXPECT_EQ(value.text, std::string("a\"\\\n\r\t\x01\x7f\0\xC3\xA9/", 12));
}

TEST(JsonValueTest, InvalidUtf8IsWrittenAsReplacement) {
  std::string out;
  AppendJsonString(&out, "a\xFF\xC3z");
  EXPECT_EQ(out, "\"a\xEF\xBF\xBD\xEF\xBF\xBDz\"");
}

}  // namespace
}  // namespace bunker::controller
