#include "agent/net/http_gate.h"

#include <gtest/gtest.h>

namespace bunker::agent {
namespace {

HttpGate Gate() {
  return HttpGate([](const std::string& host) { return host == "good.example"; });
}

// What came through before an error, fed in pieces of `piece` bytes.
std::string Through(const std::string& text, size_t piece, absl::StatusCode* code) {
  HttpGate gate = Gate();
  std::string pass;
  *code = absl::StatusCode::kOk;
  for (size_t at = 0; at < text.size(); at += piece) {
    const absl::Status fed = gate.Feed(std::string_view(text).substr(at, piece), &pass);
    if (!fed.ok()) {
      *code = fed.code();
      break;
    }
  }
  return pass;
}

TEST(HttpGate, EveryRequestOfAConnectionPassesUnchanged) {
  const std::string text =
      "GET /a HTTP/1.1\r\nHost: good.example\r\n\r\n"
      "POST /b HTTP/1.1\r\nhost:  GOOD.example:80 \r\nContent-Length: 5\r\n\r\nhello"
      "PUT http://good.example/c HTTP/1.1\r\nHost: good.example\r\nTransfer-Encoding: "
      "chunked\r\n\r\n"
      "5\r\nGET /\r\n0a\r\n0123456789\r\n0\r\nX: y\r\n\r\n"
      "GET /d HTTP/1.0\r\nHost: good.example\r\n\r\n";
  for (const size_t piece : {size_t{1}, size_t{2}, size_t{7}, text.size()}) {
    absl::StatusCode code;
    EXPECT_EQ(Through(text, piece, &code), text) << piece;
    EXPECT_EQ(code, absl::StatusCode::kOk);
  }
}

TEST(HttpGate, ASecondRequestToAnotherHostStopsThere) {
  const std::string first = "POST /b HTTP/1.1\r\nHost: good.example\r\nContent-Length: 2\r\n\r\nhi";
  const std::string second = "GET /x HTTP/1.1\r\nHost: evil.example\r\n\r\n";
  for (const size_t piece : {size_t{1}, size_t{1000}}) {
    absl::StatusCode code;
    EXPECT_EQ(Through(first + second, piece, &code), first);
    EXPECT_EQ(code, absl::StatusCode::kPermissionDenied);
  }
}

TEST(HttpGate, WhatServersReadDifferentlyIsRefused) {
  const std::string host = "Host: good.example\r\n";
  for (const std::string& text : std::vector<std::string>{
           "GET / HTTP/1.1\r\n\r\n",
           "GET / HTTP/1.1\r\nHost:\r\n\r\n",
           "GET / HTTP/1.1\r\n" + host + "Host: good.example\r\n\r\n",
           "GET / HTTP/1.1\r\n" + host + "Host : evil.example\r\n\r\n",
           "GET / HTTP/1.1\r\n" + host + " folded\r\n\r\n",
           "GET / HTTP/1.1\r\n" + host + "X: a\nHost: evil.example\r\n\r\n",
           "GET / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
           "GET / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
           "GET / HTTP/1.1\r\n" + host + "Content-Length: +1\r\n\r\n",
           "GET / HTTP/1.1\r\n" + host + "Content-Length: 1, 1\r\n\r\n",
           "GET / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n",
           "GET / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n",
           "GET / HTTP/1.1\r\n" + host + "Upgrade: websocket\r\n\r\n",
           "GET http://evil.example/ HTTP/1.1\r\n" + host + "\r\n",
           "GET http://good.example@evil.example/ HTTP/1.1\r\n" + host + "\r\n",
           "GET evil.example HTTP/1.1\r\n" + host + "\r\n",
           "GET / HTTP/2.0\r\n" + host + "\r\n",
           "GET /\r\n" + host + "\r\n",
           "GET /\ta HTTP/1.1\r\n" + host + "\r\n",
           "CONNECT x:443 HTTP/1.1\r\n" + host + "\r\n",
           "GET / HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n",
           "GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n",
           "GET / HTTP/1.1\r\nHost: good.example, evil.example\r\n\r\n",
           "GET / HTTP/1.1\r\nHost: good.example:80x\r\n\r\n",
           "\r\n\r\n",
           " \r\n\r\n"}) {
    absl::StatusCode code;
    EXPECT_EQ(Through(text, text.size(), &code), "") << text;
    EXPECT_NE(code, absl::StatusCode::kOk) << text;
  }
}

TEST(HttpGate, ChunksAreReadStrictly) {
  const std::string head =
      "POST / HTTP/1.1\r\nHost: good.example\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const char* body : {"5;x=1\r\nhello\r\n", "0x5\r\nhello\r\n", "-1\r\n", "5\nhello\r\n",
                           "3\r\nhello\r\n", "\r\n", "fffffffffffffffff\r\n"}) {
    absl::StatusCode code;
    Through(head + body, 4096, &code);
    EXPECT_NE(code, absl::StatusCode::kOk) << body;
  }
}

TEST(HttpGate, WhatNeverEndsIsRefused) {
  absl::StatusCode code;
  Through("GET / HTTP/1.1\r\nHost: good.example\r\nX: " + std::string(40'000, 'a'), 1000, &code);
  EXPECT_NE(code, absl::StatusCode::kOk);
}

}  // namespace
}  // namespace bunker::agent
