// The HTTP server against raw sockets: what no well-behaved client sends.
#include "controller/rest/http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "common/base/mutex.h"
#include "common/base/unique_fd.h"

namespace bunker::controller {
namespace {

// Answers with what it got; "/stream" answers with events that the test sends; "/never" waits.
class EchoHandler final : public HttpHandler {
 public:
  void Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) override {
    if (request.target == "/never") {
      exchange->OnClosed([this] {
        MutexLock lock(mutex_);
        closed_ = true;
        changed_.notify_all();
      });
      Keep(std::move(exchange));
      return;
    }
    if (request.target == "/drop") return;
    if (request.target == "/stream") {
      exchange->StartStream({200, {{"Content-Type", "text/event-stream"}}, ""});
      Keep(std::move(exchange));
      return;
    }
    exchange->Send({200, {{"X-Method", request.method}}, request.target + "|" + request.body});
  }
  HttpResponse ProtocolError(int http_status, std::string_view message) override {
    return {http_status, {}, std::string(message)};
  }

  std::shared_ptr<HttpExchange> WaitForExchange() {
    MutexLock lock(mutex_);
    changed_.wait_for(lock.native(), std::chrono::seconds(10), [this] { return kept_ != nullptr; });
    return std::move(kept_);
  }
  bool WaitForClosed() {
    MutexLock lock(mutex_);
    return changed_.wait_for(lock.native(), std::chrono::seconds(10), [this] { return closed_; });
  }

 private:
  void Keep(std::shared_ptr<HttpExchange> exchange) {
    MutexLock lock(mutex_);
    kept_ = std::move(exchange);
    changed_.notify_all();
  }
  Mutex mutex_;
  CondVar changed_;
  std::shared_ptr<HttpExchange> kept_;
  bool closed_ = false;
};

class HttpServerTest : public testing::Test {
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

  // Everything until the end of the connection, or until `until` has come.
  static std::string Receive(const UniqueFd& fd, const std::string& until = "") {
    std::string got;
    char chunk[65536];
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (absl::Now() < deadline) {
      if (!until.empty() && got.find(until) != std::string::npos) return got;
      pollfd item{fd.get(), POLLIN, 0};
      if (::poll(&item, 1, 200) == 0) continue;
      const ssize_t n = ::recv(fd.get(), chunk, sizeof chunk, 0);
      if (n <= 0) return got;
      got.append(chunk, static_cast<size_t>(n));
    }
    return got + "<timeout>";
  }

  std::string Exchange(std::string_view request) {
    const UniqueFd fd = Connect();
    Send(fd, request);
    return Receive(fd);
  }
  static std::string StatusLine(const std::string& answer) {
    return answer.substr(0, answer.find("\r\n"));
  }

  EchoHandler handler_;
  std::unique_ptr<HttpServer> server_;
};

constexpr char kClose[] = "Host: h\r\nConnection: close\r\n";

TEST_F(HttpServerTest, AnswersRequestsOneAfterAnotherAndPipelined) {
  Start();
  const UniqueFd fd = Connect();
  Send(fd, "GET /one HTTP/1.1\r\nHost: h\r\n\r\nPOST /two HTTP/1.1\r\nHost: h\r\n"
           "Content-Length: 5\r\n\r\nhelloGET /three HTTP/1.1\r\nHost: h\r\n\r\n");
  const std::string got = Receive(fd, "/three|");
  EXPECT_NE(got.find("/one|"), std::string::npos);
  EXPECT_NE(got.find("/two|hello"), std::string::npos);
  EXPECT_LT(got.find("/one|"), got.find("/two|"));
}

TEST_F(HttpServerTest, ChunkedBodies) {
  Start();
  const std::string got = Exchange(std::string("POST /c HTTP/1.1\r\n") + kClose +
                                   "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n"
                                   "0\r\n\r\n");
  EXPECT_NE(got.find("/c|abcdefg"), std::string::npos) << got;
}

TEST_F(HttpServerTest, SmugglingIsRefusedAndTheConnectionEnds) {
  Start();
  for (const char* request :
       {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
        "0\r\n\r\nGET /x",
        "GET / HTTP/1.1\nHost: h\n\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /a//b HTTP/1.1\r\nHost: h\r\n\r\n", "GET /%2e%2e/b HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /a%00b HTTP/1.1\r\nHost: h\r\n\r\n", "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}) {
    const std::string got = Exchange(request);
    EXPECT_EQ(StatusLine(got), "HTTP/1.1 400 Bad Request") << request;
    EXPECT_EQ(got.find("\nContent-Length:"), got.rfind("\nContent-Length:"))
        << "a second answer to " << request;
    EXPECT_NE(got.find("Connection: close"), std::string::npos);
  }
}

TEST_F(HttpServerTest, HeadersAndBodiesAreBounded) {
  Start();
  EXPECT_EQ(StatusLine(Exchange("GET / HTTP/1.1\r\nHost: h\r\nX: " + std::string(20'000, 'a'))),
            "HTTP/1.1 431 Request Header Fields Too Large");
  EXPECT_EQ(StatusLine(Exchange("GET /" + std::string(20'000, 'a'))),
            "HTTP/1.1 431 Request Header Fields Too Large");
  EXPECT_EQ(StatusLine(Exchange("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8388609\r\n\r\n")),
            "HTTP/1.1 413 Payload Too Large");
  // Chunked, so that no length announces it.
  std::string chunks = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 9; ++i) chunks += "100000\r\n" + std::string(1 << 20, 'x') + "\r\n";
  EXPECT_EQ(StatusLine(Exchange(chunks)), "HTTP/1.1 413 Payload Too Large");
  // The largest that is allowed.
  const std::string got = Exchange(std::string("POST / HTTP/1.1\r\n") + kClose +
                                   "Content-Length: 8388608\r\n\r\n" + std::string(8 << 20, 'x'));
  EXPECT_EQ(StatusLine(got), "HTTP/1.1 200 OK");
  EXPECT_GT(got.size(), size_t{8} << 20);
}

TEST_F(HttpServerTest, BodiesOfAllConnectionsTogetherAreBounded) {
  HttpLimits limits;
  limits.max_bodies_bytes = 1 << 20;
  Start(limits);
  const std::string got =
      Exchange("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\n" +
               std::string(4'000'000, 'x'));
  EXPECT_EQ(StatusLine(got), "HTTP/1.1 503 Service Unavailable");
  EXPECT_EQ(StatusLine(Exchange(std::string("GET / HTTP/1.1\r\n") + kClose + "\r\n")),
            "HTTP/1.1 200 OK");
}

TEST_F(HttpServerTest, ExpectContinueIsAnswered) {
  Start();
  const UniqueFd fd = Connect();
  Send(fd, "POST /e HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(Receive(fd, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  Send(fd, "hi");
  EXPECT_NE(Receive(fd, "/e|hi").find("HTTP/1.1 200 OK"), std::string::npos);
}

TEST_F(HttpServerTest, SlowRequestsAreEnded) {
  HttpLimits limits;
  limits.header_timeout = absl::Milliseconds(200);
  limits.progress_timeout = absl::Milliseconds(200);
  Start(limits);
  EXPECT_EQ(StatusLine(Exchange("GET / HTTP/1.1\r\nHos")), "HTTP/1.1 408 Request Timeout");
  EXPECT_EQ(StatusLine(Exchange("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc")),
            "HTTP/1.1 408 Request Timeout");
  EXPECT_EQ(Exchange(""), "");  // an idle connection just ends
}

// One that sends a byte now and then gets no more time for its head than the others.
TEST_F(HttpServerTest, DrippingDoesNotExtendTheHeadsTime) {
  HttpLimits limits;
  limits.header_timeout = absl::Milliseconds(300);
  Start(limits);
  const UniqueFd fd = Connect();
  const absl::Time start = absl::Now();
  std::string got;
  Send(fd, "GET / HTTP/1.1\r\nX: ");
  while (absl::Now() - start < absl::Seconds(10)) {
    Send(fd, "a");
    pollfd item{fd.get(), POLLIN, 0};
    if (::poll(&item, 1, 20) > 0) {
      got = Receive(fd);
      break;
    }
  }
  EXPECT_EQ(StatusLine(got), "HTTP/1.1 408 Request Timeout");
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
}

TEST_F(HttpServerTest, SlowConnectionsDoNotStopTheOthers) {
  Start();
  std::vector<UniqueFd> slow;
  for (int i = 0; i < 500; ++i) {
    slow.push_back(Connect());
    Send(slow.back(), "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nx");
  }
  const absl::Time start = absl::Now();
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(StatusLine(Exchange(std::string("GET / HTTP/1.1\r\n") + kClose + "\r\n")),
              "HTTP/1.1 200 OK");
  }
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
  EXPECT_GE(server_->connection_count(), 500u);
}

TEST_F(HttpServerTest, ConnectionsAreCapped) {
  HttpLimits limits;
  limits.max_connections = 3;
  Start(limits);
  std::vector<UniqueFd> open;
  for (int i = 0; i < 3; ++i) {
    open.push_back(Connect());
    Send(open.back(), "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT_NE(Receive(open.back(), "/|").find("200 OK"), std::string::npos);
  }
  EXPECT_EQ(Exchange("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), "");
  open.pop_back();
  // The place is free once the server has seen the end.
  std::string got;
  for (int i = 0; i < 1000 && got.empty(); ++i)
    got = Exchange(std::string("GET / HTTP/1.1\r\n") + kClose + "\r\n");
  EXPECT_EQ(StatusLine(got), "HTTP/1.1 200 OK");
}

TEST_F(HttpServerTest, AClientThatGoesIsNoticed) {
  Start();
  std::shared_ptr<HttpExchange> exchange;
  {
    const UniqueFd fd = Connect();
    Send(fd, "GET /never HTTP/1.1\r\nHost: h\r\n\r\n");
    exchange = handler_.WaitForExchange();
    ASSERT_NE(exchange, nullptr);
  }
  EXPECT_TRUE(handler_.WaitForClosed());
}

TEST_F(HttpServerTest, AnAnswerThatNeverComesEndsTheConnection) {
  Start();
  EXPECT_EQ(Exchange("GET /drop HTTP/1.1\r\nHost: h\r\n\r\n"), "");
}

TEST_F(HttpServerTest, StreamsEventsInChunks) {
  Start();
  const UniqueFd fd = Connect();
  Send(fd, "GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
  const auto exchange = handler_.WaitForExchange();
  ASSERT_NE(exchange, nullptr);
  EXPECT_TRUE(exchange->WriteEvent("data: 1\n\n", ""));
  EXPECT_TRUE(exchange->WriteEvent("data: 2\n\n", ""));
  exchange->EndStream();
  const std::string got = Receive(fd, "0\r\n\r\n");
  EXPECT_NE(got.find("Transfer-Encoding: chunked"), std::string::npos);
  EXPECT_NE(got.find("9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n"), std::string::npos)
      << got;
  // And the connection goes on.
  Send(fd, "GET /after HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_NE(Receive(fd, "/after|").find("200 OK"), std::string::npos);
}

TEST_F(HttpServerTest, ASlowReaderIsDroppedWithItsLastWords) {
  HttpLimits limits;
  limits.max_stream_queue_bytes = 64 << 10;
  Start(limits);
  const UniqueFd fd = Connect();
  Send(fd, "GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
  const auto exchange = handler_.WaitForExchange();
  ASSERT_NE(exchange, nullptr);
  bool open = true;
  for (int i = 0; i < 100'000 && open; ++i)
    open = exchange->WriteEvent(std::string(4096, 'x') + "\n\n", "event: error\n\n");
  EXPECT_FALSE(open);
  const std::string got = Receive(fd, "0\r\n\r\n");
  EXPECT_NE(got.find("event: error\n\n\r\n0\r\n\r\n"), std::string::npos);
}

TEST_F(HttpServerTest, StopAnswersWhatRuns) {
  Start();
  const UniqueFd fd = Connect();
  Send(fd, "GET /never HTTP/1.1\r\nHost: h\r\n\r\n");
  const auto exchange = handler_.WaitForExchange();
  ASSERT_NE(exchange, nullptr);
  std::thread stop([this] { server_->Stop(absl::Seconds(10)); });
  exchange->Send({200, {}, "late"});
  const std::string got = Receive(fd);
  stop.join();
  EXPECT_NE(got.find("late"), std::string::npos);
}

TEST_F(HttpServerTest, APortThatIsTakenIsAnError) {
  Start();
  HttpServerOptions options;
  options.port = server_->port();
  const auto second = HttpServer::Start(options, &handler_);
  EXPECT_FALSE(second.ok());
}

}  // namespace
}  // namespace bunker::controller
