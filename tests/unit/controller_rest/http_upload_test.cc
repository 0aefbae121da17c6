// Bodies that go through the HTTP server without being kept in it, both ways, against raw sockets.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "common/base/mutex.h"
#include "common/base/unique_fd.h"
#include "controller/rest/http_server.h"

namespace bunker::controller {
namespace {

// Streams the bodies of PUTs: the test reads them through the exchange that it is given.
class StreamingHandler final : public HttpHandler {
 public:
  void Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) override {
    if (!request.has_streamed_body && request.method != "GET")
      return exchange->Send({200, {}, "kept " + request.body});
    MutexLock lock(mutex_);
    length_ = request.content_length;
    kept_ = std::move(exchange);
    changed_.notify_all();
  }
  bool StreamsBody(const HttpRequest& head) override { return head.method == "PUT"; }
  HttpResponse ProtocolError(int http_status, std::string_view message) override {
    return {http_status, {}, std::string(message)};
  }

  std::shared_ptr<HttpExchange> Take() {
    MutexLock lock(mutex_);
    changed_.wait_for(lock.native(), std::chrono::seconds(20), [this] { return kept_ != nullptr; });
    return std::move(kept_);
  }
  std::optional<uint64_t> length() {
    MutexLock lock(mutex_);
    return length_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::shared_ptr<HttpExchange> kept_;
  std::optional<uint64_t> length_;
};

// The next piece, waited for.
absl::StatusOr<std::string> ReadPiece(HttpExchange& exchange) {
  struct Shared {
    Mutex mutex;
    CondVar changed;
    std::optional<absl::StatusOr<std::string>> piece;
  };
  auto shared = std::make_shared<Shared>();
  exchange.ReadBody([shared](absl::StatusOr<std::string> piece) {
    MutexLock lock(shared->mutex);
    shared->piece = std::move(piece);
    shared->changed.notify_all();
  });
  MutexLock lock(shared->mutex);
  shared->changed.wait_for(lock.native(), std::chrono::seconds(20),
                           [&] { return shared->piece.has_value(); });
  if (!shared->piece) return absl::DeadlineExceededError("the test waited in vain");
  return *std::move(shared->piece);
}

absl::StatusOr<std::string> ReadAll(HttpExchange& exchange) {
  std::string all;
  for (;;) {
    auto piece = ReadPiece(exchange);
    if (!piece.ok()) return piece.status();
    if (piece->empty()) return all;
    EXPECT_LE(piece->size(), 65536u);
    all += *piece;
  }
}

class HttpUploadTest : public testing::Test {
 protected:
  void Start(HttpLimits limits = HttpLimits()) {
    HttpServerOptions options;
    options.limits = limits;
    auto server = HttpServer::Start(options, &handler_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  UniqueFd Connect() {
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(server_->port());
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    return fd;
  }

  static void Send(const UniqueFd& fd, std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      text.remove_prefix(static_cast<size_t>(n));
    }
  }

  // Everything until the connection ends, or `until` has come; `*reset`: it ended with an error.
  static std::string Receive(const UniqueFd& fd, const std::string& until = "",
                             bool* reset = nullptr) {
    std::string got;
    char chunk[65536];
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (absl::Now() < deadline) {
      if (!until.empty() && got.find(until) != std::string::npos) return got;
      pollfd item{fd.get(), POLLIN, 0};
      if (::poll(&item, 1, 200) == 0) continue;
      const ssize_t n = ::recv(fd.get(), chunk, sizeof chunk, 0);
      if (n < 0 && reset != nullptr) *reset = true;
      if (n <= 0) return got;
      got.append(chunk, static_cast<size_t>(n));
    }
    return got + "<timeout>";
  }

  // Whether nothing comes for a moment in which it would have.
  static bool IsSilent(const UniqueFd& fd) {
    pollfd item{fd.get(), POLLIN, 0};
    return ::poll(&item, 1, 100) == 0;
  }

  StreamingHandler handler_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpUploadTest, BodiesArriveWholeAndTheConnectionGoesOn) {
  Start();
  const UniqueFd fd = Connect();
  const std::string body(300'000, 'b');
  Send(fd, "PUT /one HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n" + body);
  auto exchange = handler_.Take();
  ASSERT_NE(exchange, nullptr);
  EXPECT_EQ(handler_.length(), 300'000u);
  auto got = ReadAll(*exchange);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(*got, body);
  exchange->Send({200, {}, "first"});
  EXPECT_NE(Receive(fd, "first").find("200"), std::string::npos);

  // Chunked, with the next request right behind it.
  Send(fd, "PUT /two HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
           "3\r\nabc\r\n1\r\nd\r\n0\r\n\r\nPOST /three HTTP/1.1\r\nHost: h\r\n"
           "Content-Length: 2\r\n\r\nhi");
  exchange = handler_.Take();
  ASSERT_NE(exchange, nullptr);
  EXPECT_FALSE(handler_.length().has_value());
  got = ReadAll(*exchange);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(*got, "abcd");
  exchange->Send({200, {}, "second"});
  const std::string rest = Receive(fd, "kept hi");
  EXPECT_LT(rest.find("second"), rest.find("kept hi"));

  Send(fd, "PUT /empty HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
  exchange = handler_.Take();
  ASSERT_NE(exchange, nullptr);
  EXPECT_EQ(*ReadAll(*exchange), "");
}

TEST_F(HttpUploadTest, WhatIsNotAskedForStaysWithTheClient) {
  Start();
  const UniqueFd fd = Connect();
  constexpr size_t kSize = 64u << 20;
  Send(fd, "PUT /big HTTP/1.1\r\nHost: h\r\nContent-Length: 67108864\r\n\r\n");
  auto exchange = handler_.Take();
  ASSERT_NE(exchange, nullptr);
  const std::string block(1u << 20, 'x');
  size_t sent = 0;
  for (;;) {
    pollfd item{fd.get(), POLLOUT, 0};
    if (::poll(&item, 1, 500) == 0) break;
    const ssize_t n = ::send(fd.get(), block.data(), block.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) sent += static_cast<size_t>(n);
    if (sent > kSize / 2) break;
  }
  EXPECT_LT(sent, kSize / 2) << "the server reads what nobody asked for";
  auto piece = ReadPiece(*exchange);
  ASSERT_TRUE(piece.ok()) << piece.status();
  EXPECT_FALSE(piece->empty());
}

TEST_F(HttpUploadTest, ContinueComesWithTheFirstRead) {
  Start();
  const UniqueFd fd = Connect();
  Send(fd, "PUT /f HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  auto exchange = handler_.Take();
  ASSERT_NE(exchange, nullptr);
  EXPECT_TRUE(IsSilent(fd));
  exchange->ReadBody([](absl::StatusOr<std::string>) {});
  EXPECT_NE(Receive(fd, "\r\n\r\n").find("100 Continue"), std::string::npos);
}

TEST_F(HttpUploadTest, ARefusalNeedsNoBody) {
  Start();
  const UniqueFd fd = Connect();
  Send(fd, "PUT /f HTTP/1.1\r\nHost: h\r\nContent-Length: 900000000\r\n"
           "Expect: 100-continue\r\n\r\n");
  auto exchange = handler_.Take();
  ASSERT_NE(exchange, nullptr);
  exchange->Send({507, {}, "no room"});
  const std::string got = Receive(fd);
  EXPECT_NE(got.find("507"), std::string::npos);
  EXPECT_NE(got.find("Connection: close"), std::string::npos);
  EXPECT_EQ(got.find("100 Continue"), std::string::npos);
}

TEST_F(HttpUploadTest, AClientThatGoesOrStallsIsTold) {
  HttpLimits limits;
  limits.progress_timeout = absl::Milliseconds(300);
  Start(limits);
  {
    const UniqueFd fd = Connect();
    Send(fd, "PUT /f HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf");
    auto exchange = handler_.Take();
    ASSERT_NE(exchange, nullptr);
    EXPECT_EQ(*ReadPiece(*exchange), "half");
    const auto stalled = ReadPiece(*exchange);
    EXPECT_TRUE(absl::IsInvalidArgument(stalled.status())) << stalled.status();
  }
  std::shared_ptr<HttpExchange> exchange;
  {
    const UniqueFd fd = Connect();
    Send(fd, "PUT /f HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf");
    exchange = handler_.Take();
    ASSERT_NE(exchange, nullptr);
    EXPECT_EQ(*ReadPiece(*exchange), "half");
  }
  EXPECT_TRUE(absl::IsCancelled(ReadPiece(*exchange).status()));
}

TEST_F(HttpUploadTest, AnAnswerOfASaidSizeIsWholeOrCut) {
  Start();
  for (const bool whole : {true, false}) {
    const UniqueFd fd = Connect();
    Send(fd, "GET /f HTTP/1.1\r\nHost: h\r\n\r\n");
    auto exchange = handler_.Take();
    ASSERT_NE(exchange, nullptr);
    exchange->StartBody({200, {}, ""}, 10);
    EXPECT_TRUE(exchange->WriteEvent("01234", ""));
    std::string got = Receive(fd, "01234");
    EXPECT_NE(got.find("Content-Length: 10"), std::string::npos);
    EXPECT_EQ(got.find("chunked"), std::string::npos);
    if (whole) {
      exchange->WriteEvent("56789", "");
      exchange->EndStream();
      EXPECT_EQ(Receive(fd, "56789"), "56789");
      Send(fd, "POST /g HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
      EXPECT_NE(Receive(fd, "kept hi").find("kept hi"), std::string::npos);
    } else {
      exchange->EndStream();
      bool reset = false;
      EXPECT_EQ(Receive(fd, "", &reset), "");
      EXPECT_TRUE(reset);
    }
  }
}

TEST_F(HttpUploadTest, AnAbortedStreamIsCut) {
  Start();
  for (const char* version : {"1.0", "1.1"}) {
    const UniqueFd fd = Connect();
    Send(fd, std::string("GET /f HTTP/") + version + "\r\nHost: h\r\n\r\n");
    auto exchange = handler_.Take();
    ASSERT_NE(exchange, nullptr);
    exchange->StartStream({200, {}, ""});
    exchange->WriteEvent("01234", "");
    Receive(fd, "01234");
    exchange->AbortStream();
    bool reset = false;
    const std::string rest = Receive(fd, "", &reset);
    EXPECT_EQ(rest.find("0\r\n\r\n"), std::string::npos);
    EXPECT_TRUE(reset);
  }
}

}  // namespace
}  // namespace bunker::controller
