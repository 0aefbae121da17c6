// What the HTTP server and its handler say to each other. No HTTP library shows here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"

namespace bunker::controller {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

// A complete request that passed the syntax and smuggling checks. The target begins with one '/'
// and holds neither "//" nor dot segments, in any spelling.
struct HttpRequest {
  std::string method;
  std::string target;
  HttpHeaders headers;  // names in lower case
  std::string body;
  std::string peer;  // the client's address, for the log
  // The body is not here: HttpExchange::ReadBody() gives it, a piece at a time. Its length, where
  // the client said it.
  bool has_streamed_body = false;
  std::optional<uint64_t> content_length;

  // The value of the first header `name` (lower case), or "".
  std::string_view Header(std::string_view name) const {
    for (const auto& [key, value] : headers) {
      if (key == name) return value;
    }
    return {};
  }
};

struct HttpResponse {
  int status = 200;
  HttpHeaders headers;
  std::string body;
};

// A connection that has become a WebSocket. Thread-safe; that it is gone is told by the exchange's
// OnClosed(). Messages of more than 1 MiB end it.
class WebSocket {
 public:
  virtual ~WebSocket() = default;
  virtual void Send(bool is_text, std::string message) = 0;
  virtual size_t QueuedBytes() const = 0;  // of Send(), not taken yet
  // One more message may come.
  virtual void ReadOn() = 0;
  // After what was sent; RFC 6455's codes.
  virtual void Close(uint16_t code, std::string reason) = 0;
};

// On the I/O thread; nothing here may block.
struct WebSocketEvents {
  std::function<void(bool is_text, std::string message)> on_message;
  std::function<void()> on_drained;  // QueuedBytes() has become 0
};

// One request's answer. Thread-safe; may be kept and used from any thread. If it is dropped
// without an answer, the connection is closed.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;

  // The whole answer. Once; ignored where the client is gone.
  virtual void Send(HttpResponse response) = 0;

  // Starts an answer of unknown length (server-sent events); WriteEvent() and EndStream()
  // follow. The body of `head` is ignored.
  virtual void StartStream(HttpResponse head) = 0;

  // The next piece of a streamed body, at most 64 KiB; "" is its end. One at a time; what is not
  // asked for stays with the client. `done` runs once, on the I/O thread; CANCELLED: the client
  // went away, INVALID_ARGUMENT: it sent no whole body, or nothing for too long.
  using BodyDone = absl::AnyInvocable<void(absl::StatusOr<std::string>)>;
  virtual void ReadBody(BodyDone done) { done(absl::UnimplementedError("no streamed body")); }

  // As StartStream(), for an answer of `size` bytes; EndStream() before the last one cuts the
  // connection, so that nobody takes it for whole.
  virtual void StartBody(HttpResponse head, uint64_t size) {
    (void)size;
    StartStream(std::move(head));
  }
  // In place of EndStream(): cuts the connection, so that the client sees that the rest is missing.
  virtual void AbortStream() { EndStream(); }

  // Queues bytes for the client. A client too slow for the queue's bound gets `last_words` and
  // is dropped; false from then on, and where the client is gone.
  virtual bool WriteEvent(std::string bytes, std::string_view last_words) = 0;
  virtual void EndStream() = 0;

  // Bytes given to WriteEvent() that the client has not taken yet; and `drained`, which runs on any
  // thread whenever that has become 0. It must not block.
  virtual size_t QueuedBytes() const { return 0; }
  virtual void OnDrained(std::function<void()>) {}

  // Answers 101 to a request that asks for a WebSocket. Null: this exchange can't.
  virtual std::shared_ptr<WebSocket> Upgrade(const HttpRequest&, WebSocketEvents) {
    return nullptr;
  }

  // `closed` runs once if the client goes away before the answer is complete; on any thread, and
  // at once where it is gone already. It must not block.
  virtual void OnClosed(std::function<void()> closed) = 0;
};

class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // Runs on an I/O thread; must not block.
  virtual void Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) = 0;
  // Whether the body of this request, whose head has come, is for ReadBody(), whatever its size.
  virtual bool StreamsBody(const HttpRequest&) { return false; }
  // The body of an error that the server itself answers (400, 413, 431, 503 …).
  virtual HttpResponse ProtocolError(int http_status, std::string_view message) = 0;
};

}  // namespace bunker::controller
