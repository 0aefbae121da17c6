#include "controller/rest/http_head.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace bunker::controller {
namespace {

std::string Head(const std::string& lines) {
  return "GET / HTTP/1.1\r\nHost: h\r\n" + lines + "\r\n";
}

TEST(HttpHeadTest, AcceptsPlainRequests) {
  EXPECT_EQ(CheckRequestHead(Head("")), "");
  EXPECT_EQ(CheckRequestHead(Head("Content-Length: 5\r\nX-A: b c\t d\r\n")), "");
  EXPECT_EQ(CheckRequestHead(Head("Transfer-Encoding: Chunked\r\n")), "");
  EXPECT_EQ(CheckRequestHead("GET / HTTP/1.0\r\n\r\n"), "");
}

TEST(HttpHeadTest, RefusesWhatTwoParsersCouldReadDifferently) {
  const std::vector<std::string> bad = {
      Head("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
      Head("Content-Length: 5\r\nContent-Length: 5\r\n"),
      Head("Content-Length: 5\r\ncontent-length: 6\r\n"),
      Head("Content-Length: +5\r\n"), Head("Content-Length: 5, 5\r\n"),
      Head("Content-Length: 0x5\r\n"), Head("Content-Length:\r\n"),
      Head("Content-Length: 99999999999999999999\r\n"),
      Head("Transfer-Encoding: gzip, chunked\r\n"), Head("Transfer-Encoding: identity\r\n"),
      Head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
      Head("Transfer-Encoding: xchunked\r\n"), Head("Transfer-Encoding:\x0b" "chunked\r\n"),
      Head("Host: other\r\n"), Head("X-A: b\r\n folded\r\n"), Head("X-A: b\r\n\tfolded\r\n"),
      Head("X-A : b\r\n"), Head(": b\r\n"), Head("no colon\r\n"), Head("X(A): b\r\n"),
      Head("X-A: b\x01\r\n"), Head(std::string("X-A: b\0c\r\n", 10)), Head("X-A: b\rX-B: c\r\n"),
      Head("X-A: b\nX-B: c\r\n"),
      "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
      "GET / HTTP/1.1\nHost: h\n\n", "GET /\r\nHost: h\r\n\r\n",
      "GET / HTTP/2.0\r\nHost: h\r\n\r\n",
      "GET  / HTTP/1.1\r\nHost: h\r\n\r\n", "G<T / HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET / x HTTP/1.1\r\nHost: h\r\n\r\n", " GET / HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
      "CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n",
  };
  for (const std::string& head : bad) EXPECT_NE(CheckRequestHead(head), "") << head;
  std::string many;
  for (int i = 0; i < 101; ++i) many += "X-A: b\r\n";
  EXPECT_EQ(CheckRequestHead(Head(many)), "more than 100 headers");
}

TEST(HttpHeadTest, Targets) {
  for (const char* good : {"/", "/a/b", "/a%20b", "/a%2Fb", "/a?b=c", "/a?b=%2e", "/a/...", "/.a",
                           "/a?x=//", "/a?x=/../"})
    EXPECT_EQ(CheckTarget(good), "") << good;
  for (const char* bad : {"", "a", "//", "/a//b", "//a", "/a/../b", "/..", "/.", "/a/.",
                          "/a/%2e%2e",
                          "/a/%2E", "/%2e%2e/etc", "/a%00", "/a?b=%00", "/a%", "/a%2", "/a%zz",
                          "/a b", "/a#b", "/a\x7f", "/\xC3\xA9", "/a\tb"})
    EXPECT_NE(CheckTarget(bad), "") << bad;
}

TEST(HttpHeadTest, PercentDecode) {
  EXPECT_EQ(PercentDecode("a%2Fb+c", false), "a/b+c");
  EXPECT_EQ(PercentDecode("a%2Fb+c%C3%A9", true), "a/b c\xC3\xA9");
  EXPECT_EQ(PercentDecode("%41", false), "A");
}

}  // namespace
}  // namespace bunker::controller
