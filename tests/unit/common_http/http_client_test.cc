#include "common/http/http_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>

#include "common/base/reason.h"
#include "tests/unit/common_http/scripted_server.h"

namespace bunker::http {
namespace {
using ::testing::HasSubstr;
using ::testing::Not;

ClientOptions Open() {
  return {.policy = nullptr, .proxy = {}, .user_agent = "test"};
}

ClientOptions Guarded(HopPolicy policy = {}) {
  return {.policy = [policy](const Url&) { return policy; }, .proxy = {}, .user_agent = "test"};
}

Request Get(const std::string& url) {
  Request request;
  request.url = url;
  return request;
}

TEST(HttpClientTest, GetsABodyAndItsHead) {
  ScriptedServer server([](const std::string&) { return Ok("hello", "X-Thing:  a b \r\n"); });
  Client client(Open());
  Request request = Get(server.url() + "/path?q=1");
  request.headers = {{"X-Mine", "yes"}};
  const auto response = client.Do(request);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(response->body, "hello");
  EXPECT_EQ(response->Header("x-thing"), "a b");
  EXPECT_EQ(*response->ContentLength(), 5u);
  EXPECT_THAT(server.Requests()[0], HasSubstr("GET /path?q=1 HTTP/1.1\r\n"));
  EXPECT_THAT(server.Requests()[0], HasSubstr("X-Mine: yes\r\n"));
  EXPECT_THAT(server.Requests()[0], HasSubstr("User-Agent: test\r\n"));
}

TEST(HttpClientTest, SendsBodies) {
  ScriptedServer server([](const std::string&) { return Ok("{}"); });
  Client client(Open());
  for (const char* method : {"POST", "PUT", "PATCH", "DELETE"}) {
    Request request = Get(server.url());
    request.method = method;
    if (request.method != "DELETE") request.body = std::string("a\0b", 3);
    ASSERT_TRUE(client.Do(request).ok());
    EXPECT_EQ(server.Requests().back().substr(0, request.method.size()), method);
    EXPECT_THAT(server.Requests().back(), HasSubstr("\r\n\r\n" + request.body));
  }
}

TEST(HttpClientTest, SendsWhatASourceGives) {
  ScriptedServer server([](const std::string&) { return Ok("{}"); });
  Client client(Open());
  const std::string body = "first\0second";
  size_t given = 0;
  Request request = Get(server.url());
  request.method = "PUT";
  request.source_bytes = body.size();
  request.source = [&](char* room, size_t size) -> absl::StatusOr<size_t> {
    const size_t step = std::min({size, body.size() - given, size_t{4}});
    body.copy(room, step, given);
    given += step;
    return step;
  };
  ASSERT_TRUE(client.Do(request).ok());
  EXPECT_THAT(server.Requests()[0], HasSubstr("Content-Length: " + std::to_string(body.size())));
  EXPECT_THAT(server.Requests()[0], HasSubstr("\r\n\r\n" + body));

  request.source = [](char*, size_t) -> absl::StatusOr<size_t> {
    return absl::NotFoundError("the source went away");
  };
  const auto failed = client.Do(request);
  EXPECT_EQ(failed.status(), absl::NotFoundError("the source went away"));
}

TEST(HttpClientTest, AsksForTheHeadAlone) {
  ScriptedServer server(
      [](const std::string&) { return "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"; });
  Client client(Open());
  Request request = Get(server.url());
  request.method = "HEAD";
  const auto response = client.Do(request);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(*response->ContentLength(), 1000u);
}

TEST(HttpClientTest, SpeaksOverAUnixSocket) {
  std::string folder = std::filesystem::temp_directory_path().string() + "/bunker-http-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  {
    ScriptedServer server([](const std::string&) { return Ok("local"); }, folder + "/socket");
    Client client(Guarded());  // the filter is for addresses, and there is none
    Request request = Get("http://controller/v1/x");
    request.unix_socket = folder + "/socket";
    const auto response = client.Do(request);
    ASSERT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->body, "local");
  }
  std::filesystem::remove_all(folder);
}

TEST(HttpClientTest, StreamsToASinkAsItComes) {
  ScriptedServer server([](const std::string&) {
    return "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
  });
  server.KeepOpen();
  Client client(Open());
  Request request = Get(server.url());
  std::string seen;
  std::atomic<bool> enough{false};
  request.low_speed_bytes_per_s = 0;
  request.sink = [&](std::string_view piece) {
    seen += piece;
    enough = seen.find("\n\n") != std::string::npos;
    return absl::OkStatus();
  };
  request.stop = [&] { return enough.load(); };
  EXPECT_EQ(ReasonOf(client.Do(request).status()), "CANCELLED");
  EXPECT_EQ(seen, "data: 1\n\n");
}

TEST(HttpClientTest, KeepsErrorPagesFromTheSink) {
  ScriptedServer server(
      [](const std::string&) { return "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno!"; });
  Client client(Open());
  Request request = Get(server.url());
  request.sink = [](std::string_view) { return absl::InternalError("not for me"); };
  const auto response = client.Do(request);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->status, 404);
  EXPECT_EQ(response->body, "no!");
}

TEST(HttpClientTest, PassesOnWhatCallbacksDecide) {
  ScriptedServer server([](const std::string&) { return Ok("hello"); });
  Client client(Open());
  Request request = Get(server.url());
  request.sink = [](std::string_view) { return absl::DataLossError("my own"); };
  EXPECT_EQ(client.Do(request).status().message(), "my own");
  request.sink = nullptr;
  request.on_head = [](const ResponseHead& head) {
    EXPECT_EQ(head.status, 200);
    return absl::AbortedError("at the head");
  };
  EXPECT_EQ(client.Do(request).status().message(), "at the head");
}

TEST(HttpClientTest, BoundsBodiesHeadersAndErrorPages) {
  Client client(Open());
  {
    ScriptedServer server([](const std::string&) { return Ok(std::string(100'000, 'x')); });
    Request request = Get(server.url());
    request.max_body_bytes = 99'999;
    EXPECT_EQ(client.Do(request).status().code(), absl::StatusCode::kResourceExhausted);
    request.max_body_bytes = 100'000;
    EXPECT_TRUE(client.Do(request).ok());
  }
  {
    ScriptedServer server([](const std::string&) {
      std::string headers;
      for (int i = 0; i < 2000; ++i)
        headers += "X-" + std::to_string(i) + ": " + std::string(50, 'x') + "\r\n";
      return Ok("x", headers);
    });
    EXPECT_EQ(client.Do(Get(server.url())).status().code(), absl::StatusCode::kResourceExhausted);
  }
  {
    ScriptedServer server([](const std::string&) {
      return "HTTP/1.1 500 Oops\r\n\r\n" + std::string(1'000'000, 'x');
    });
    const auto response = client.Do(Get(server.url()));
    ASSERT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->status, 500);
    EXPECT_LE(response->body.size(), 64u << 10);
  }
}

TEST(HttpClientTest, TellsFailuresApart) {
  Client client(Open());
  int port = 0;
  {
    ScriptedServer server([](const std::string&) { return ""; });
    EXPECT_EQ(client.Do(Get(server.url())).status().code(), absl::StatusCode::kUnavailable);
    port = server.port();
  }
  EXPECT_EQ(client.Do(Get("http://127.0.0.1:" + std::to_string(port))).status().code(),
            absl::StatusCode::kUnavailable);
  ScriptedServer cut(
      [](const std::string&) { return "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"; });
  EXPECT_EQ(client.Do(Get(cut.url())).status().code(), absl::StatusCode::kDataLoss);
  ScriptedServer chunked([](const std::string&) {
    return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
  });
  EXPECT_EQ(client.Do(Get(chunked.url())).status().code(), absl::StatusCode::kDataLoss);
  ScriptedServer silent([](const std::string&) { return "HTTP/1.1 200 OK\r\n"; });
  silent.KeepOpen();
  Request request = Get(silent.url());
  request.total_timeout = absl::Milliseconds(200);
  EXPECT_EQ(client.Do(request).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(client.Do(Get("file:///etc/passwd")).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(HttpClientTest, RefusesHeadersThatBreakTheLine) {
  ScriptedServer server([](const std::string&) { return Ok("x"); });
  Client client(Open());
  for (const auto& [name, value] : {std::pair<std::string, std::string>{"X", "a\r\nY: b"},
                                    {"X: y\r\nZ", "a"},
                                    {"X", std::string("a\0", 2)},
                                    {"", "a"}}) {
    Request request = Get(server.url());
    request.headers = {{name, value}};
    EXPECT_EQ(client.Do(request).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(server.Requests().size(), 0u);
}

TEST(HttpClientTest, FiltersTheAddressThatIsConnectedTo) {
  ScriptedServer server([](const std::string&) { return Ok("secret"); });
  const std::string port = std::to_string(server.port());
  Client guarded(Guarded({.plain_http = true, .any_address = false, .ca_file = ""}));
  for (const std::string host : {"127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1",
                                 "[::ffff:127.0.0.1]", "0.0.0.0", "localhost.localdomain"}) {
    const auto response = guarded.Do(Get("http://" + host + ":" + port + "/"));
    EXPECT_FALSE(response.ok()) << host;
  }
  EXPECT_THAT(std::string(guarded.Do(Get(server.url())).status().message()), HasSubstr("loopback"));
  // A name whose address only the resolver knows: this host's own.
  char name[256];
  ASSERT_EQ(::gethostname(name, sizeof name), 0);
  EXPECT_FALSE(guarded.Do(Get("http://" + std::string(name) + ":" + port + "/")).ok());
  EXPECT_EQ(server.Requests().size(), 0u);
  Client allowed(Guarded({.plain_http = true, .any_address = true, .ca_file = ""}));
  EXPECT_TRUE(allowed.Do(Get(server.url())).ok());
  Client no_http(Guarded({.plain_http = false, .any_address = true, .ca_file = ""}));
  EXPECT_THAT(std::string(no_http.Do(Get(server.url())).status().message()),
              HasSubstr("plain http is refused"));
}

TEST(HttpClientTest, FollowsRedirectsWithoutCredentialsElsewhere) {
  ScriptedServer other([](const std::string&) { return Ok("there"); });
  ScriptedServer server([&](const std::string& request) -> std::string {
    if (request.find("GET /same ") == 0) return Ok("here");
    const std::string to = request.find("GET /away ") == 0 ? other.url() + "/x" : "/same";
    return "HTTP/1.1 302 Found\r\nContent-Length: 4\r\nLocation: " + to + "\r\n\r\nmove";
  });
  Client client(Open());
  Request request = Get(server.url() + "/start");
  request.headers = {{"authorization", "Bearer secret"}, {"COOKIE", "a=b"}, {"Accept", "x/y"}};
  request.max_redirects = 5;
  auto response = client.Do(request);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->body, "here");
  EXPECT_THAT(server.Requests().back(), HasSubstr("secret"));
  request.url = server.url() + "/away";
  response = client.Do(request);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->body, "there");
  EXPECT_EQ(response->url, other.url() + "/x");
  EXPECT_THAT(other.Requests().back(), Not(HasSubstr("secret")));
  EXPECT_THAT(other.Requests().back(), Not(HasSubstr("a=b")));
  EXPECT_THAT(other.Requests().back(), HasSubstr("x/y"));
  request.max_redirects = 0;
  EXPECT_EQ(client.Do(request)->status, 302);
  request.max_redirects = 5;
  request.method = "POST";
  EXPECT_EQ(client.Do(request)->status, 302);
}

TEST(HttpClientTest, UsesTheProxyItIsGiven) {
  ScriptedServer proxy([](const std::string&) { return Ok("by proxy"); });
  ClientOptions options = Guarded({.plain_http = true, .any_address = false, .ca_file = ""});
  options.proxy.http = proxy.url();
  Client client(std::move(options));
  const auto response = client.Do(Get("http://registry.example/x"));
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->body, "by proxy");
  EXPECT_THAT(proxy.Requests()[0], HasSubstr("GET http://registry.example/x HTTP/1.1"));
  // What the filter can tell from the URL it refuses behind a proxy too.
  EXPECT_FALSE(client.Do(Get("http://169.254.169.254/latest")).ok());
  EXPECT_EQ(proxy.Requests().size(), 1u);
}

TEST(HttpClientTest, IgnoresTheEnvironmentsProxy) {
  ::setenv("http_proxy", "http://127.0.0.1:1", 1);
  ScriptedServer server([](const std::string&) { return Ok("direct"); });
  Client client(Open());
  EXPECT_TRUE(client.Do(Get(server.url())).ok());
  EXPECT_EQ(ProxyFromEnvironment().http, "http://127.0.0.1:1");
  ::unsetenv("http_proxy");
  ::setenv("HTTP_PROXY", "http://127.0.0.1:2", 1);
  EXPECT_EQ(ProxyFromEnvironment().http, "http://127.0.0.1:2");
  ::setenv("REQUEST_METHOD", "GET", 1);  // a CGI's client says what HTTP_PROXY is
  EXPECT_EQ(ProxyFromEnvironment().http, "");
  ::unsetenv("REQUEST_METHOD");
  ::unsetenv("HTTP_PROXY");
}

// Bursts that would each look fast enough: what counts is what a whole stretch brings.
TEST(HttpClientTest, HoldsTheAverageToTheLowestSpeed) {
  ScriptedServer server([](const std::string&) {
    return "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + std::string(900, 'x');
  });
  server.KeepOpen();
  Client client(Open());
  Request request = Get(server.url());
  request.low_speed_bytes_per_s = 1000;
  request.low_speed_time = absl::Milliseconds(500);
  const auto start = std::chrono::steady_clock::now();
  const auto response = client.Do(request);
  EXPECT_EQ(response.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(response.status().message()), HasSubstr("less than 1000 a second"));
  const auto took = std::chrono::steady_clock::now() - start;
  EXPECT_GE(took, std::chrono::milliseconds(900));  // 900 bytes are enough for the first stretch
  EXPECT_LT(took, std::chrono::seconds(3));
}

TEST(HttpClientTest, StopsWithinAMoment) {
  ScriptedServer server([](const std::string&) { return "HTTP/1.1 200 OK\r\n"; });
  server.KeepOpen();
  Client client(Open());
  Request request = Get(server.url());
  request.stop = [&] { return !server.Requests().empty(); };
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(client.Do(request).status().code(), absl::StatusCode::kCancelled);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
}

}  // namespace
}  // namespace bunker::http
