#include "agent/net/tls_hello.h"

#include <gtest/gtest.h>

namespace bunker::agent {
namespace {

using std::string_literals::operator""s;

std::string Sized(int bytes, const std::string& data) {
  std::string out;
  for (int i = bytes - 1; i >= 0; --i) out += static_cast<char>(data.size() >> (8 * i) & 255);
  return out + data;
}

std::string ServerName(const std::string& name) {
  return "\0\0"s + Sized(2, Sized(2, "\0"s + Sized(2, name)));
}

std::string Hello(const std::string& extensions) {
  const std::string body = "\3\3"s + std::string(32, 'r') + Sized(1, "") + Sized(2, "\x13\1"s) +
                           Sized(1, "\0"s) + Sized(2, extensions);
  return "\1"s + Sized(3, body);
}

std::string Records(const std::string& message, size_t piece) {
  std::string out;
  for (size_t at = 0; at < message.size(); at += piece)
    out += "\x16\3\1"s + Sized(2, message.substr(at, piece));
  return out;
}

TEST(TlsHello, TheNameIsFoundHoweverItIsCut) {
  const std::string message = Hello("\0\x0b\0\2\1\0"s + ServerName("A.Example"));
  for (const size_t piece : {size_t{1}, size_t{3}, size_t{50}, size_t{4000}}) {
    const TlsHello hello = ReadTlsHello(Records(message, piece));
    EXPECT_EQ(hello.result, Sniffed::kName);
    EXPECT_EQ(hello.name, "a.example");
  }
  const std::string whole = Records(message, 4000);
  for (size_t cut = 1; cut < whole.size(); ++cut)
    EXPECT_EQ(ReadTlsHello(whole.substr(0, cut)).result, Sniffed::kMore) << cut;
}

TEST(TlsHello, WithoutExactlyOneGoodNameItIsRefused) {
  const auto result = [](const std::string& extensions) {
    return ReadTlsHello(Records(Hello(extensions), 4000)).result;
  };
  EXPECT_EQ(result(""), Sniffed::kRefused);
  EXPECT_EQ(result(ServerName("a.b") + ServerName("c.d")), Sniffed::kRefused);
  EXPECT_EQ(result(ServerName("a b")), Sniffed::kRefused);
  EXPECT_EQ(result(ServerName("a.b\0c.d"s)), Sniffed::kRefused);
  EXPECT_EQ(result(ServerName("")), Sniffed::kRefused);
  EXPECT_EQ(result("\0\0\0\x7f"s), Sniffed::kRefused);
  EXPECT_EQ(ReadTlsHello(Records("\2"s + Sized(3, "x"), 4000)).result, Sniffed::kRefused);
  EXPECT_EQ(ReadTlsHello("\x17\3\3\0\1x"s).result, Sniffed::kRefused);
  EXPECT_EQ(ReadTlsHello("\x16\2\1\0\1x"s).result, Sniffed::kRefused);
}

TEST(TlsHello, OneThatNeverEndsIsRefused) {
  std::string bytes = "\x16\3\1\x30\0\1\0\x3f\xff"s + std::string(0x3000 - 4, 'x');
  EXPECT_EQ(ReadTlsHello(bytes).result, Sniffed::kMore);
  bytes += "\x16\3\1\x10\0"s + std::string(0x1000, 'x');
  EXPECT_EQ(ReadTlsHello(bytes).result, Sniffed::kRefused);
  EXPECT_EQ(ReadTlsHello("\x16\3\1\0\4\1\xff\xff\xff"s).result, Sniffed::kRefused);
}

}  // namespace
}  // namespace bunker::agent
