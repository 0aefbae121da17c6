// The HTTP/1.1 server that tenants reach: bounded in connections, header and body sizes, time
// without progress and memory; one thread. What it does with a request is the handler's.
//
// Start() and Stop() from one thread; the rest is internal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "controller/rest/http_types.h"

namespace bunker::controller {

struct HttpLimits {
  size_t max_connections = 2'000;
  size_t max_connections_per_ip = 100;  // loopback is exempt
  size_t max_header_bytes = 16u << 10;
  size_t max_body_bytes = 8u << 20;
  // Of all connections together; beyond it a request is answered 503.
  size_t max_bodies_bytes = 256u << 20;
  size_t max_stream_queue_bytes = 256u << 10;
  absl::Duration header_timeout = absl::Seconds(10);
  absl::Duration progress_timeout = absl::Seconds(30);  // also of an idle kept connection
  absl::Duration body_timeout = absl::Minutes(5);
  absl::Duration accept_backoff = absl::Milliseconds(50);
};

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 0;  // 0: any free one
  std::string tls_certificate;
  std::string tls_key;
  HttpLimits limits;
};

class HttpServer {
 public:
  // Binds, listens and starts the thread. `handler` must outlive the server.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpServerOptions& options,
                                                           HttpHandler* handler);
  // Stops accepting, gives running requests `grace` to be answered, then closes everything.
  void Stop(absl::Duration grace);
  ~HttpServer();

  uint16_t port() const;
  size_t connection_count() const;

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bunker::controller
