// An HTTP client over libcurl: bounded in every direction, cancellable, with redirects and the
// choice of addresses in our own hands.
//
// Thread-safe: one client serves any number of threads; Do() blocks its caller. Connections are
// kept and reused. Never call Do() on a loop that serves.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/http/proxy.h"
#include "common/http/url.h"

namespace bunker::http {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct ResponseHead {
  int status = 0;
  Headers headers;  // names in lower case, in the order they came
  std::string url;  // of the last hop

  // The first value, or "".
  std::string Header(std::string_view lower_case_name) const;
  // All values of a header that may come several times, in one comma list.
  std::string AllOf(std::string_view lower_case_name) const;
  std::optional<uint64_t> ContentLength() const;
};

struct Response : ResponseHead {
  std::string body;  // what no sink took
};

// What one connection may do; asked for every hop of every request, with that hop's URL.
struct HopPolicy {
  bool plain_http = false;   // http:// may be spoken to it
  bool any_address = false;  // the address filter does not apply
  std::string ca_file;       // the only authorities it is believed from; "": the system's
};

struct ClientOptions {
  // Default: everything is allowed and the system's CAs are believed, as suits a client whose
  // user types the URL.
  std::function<HopPolicy(const Url&)> policy;
  ProxyConfig proxy;
  std::string user_agent = "bunker";
};

struct Request {
  std::string method = "GET";  // GET, HEAD, POST, PUT, PATCH, DELETE
  std::string url;
  std::string unix_socket;  // connect here instead of to the URL's host
  Headers headers;
  std::string body;  // with POST, PUT, PATCH
  // Where set, with PUT and in place of `body`: fills at most `size` bytes and says how many; 0 is
  // the end, an error ends the request. The server may answer before it has all of them.
  std::function<absl::StatusOr<size_t>(char* room, size_t size)> source;
  std::optional<uint64_t> source_bytes;  // how many come, where that is known

  absl::Duration connect_timeout = absl::Seconds(10);
  absl::Duration total_timeout = absl::InfiniteDuration();
  // Less than this many bytes a second on average over any one stretch of `low_speed_time` ends the
  // request; stretches follow one another and the time that `sink` takes is not counted. 0: never.
  // What `source` gave counts, too.
  uint32_t low_speed_bytes_per_s = 10 * 1024;
  absl::Duration low_speed_time = absl::Seconds(30);

  // Redirects followed, GET and HEAD only; 0 hands a 3xx to the caller. An origin's credentials
  // (Authorization, Cookie) are not sent to another origin; https never becomes http.
  int max_redirects = 0;

  // Where set: sees the head of the final response before its body; an error ends the request.
  std::function<absl::Status(const ResponseHead&)> on_head;
  // Where set: takes the body of a final 2xx response piece by piece (any size ≥ 1); an error
  // ends the request. Other bodies go to Response::body, at most 64 KiB of them.
  std::function<absl::Status(std::string_view)> sink;
  // A body of more bytes than this ends the request with kResourceExhausted.
  uint64_t max_body_bytes = 4u << 20;

  // Polled at least every 100 ms; true ends the request with kCancelled.
  std::function<bool()> stop;
};

class Client {
 public:
  explicit Client(ClientOptions options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // A response of any status is OK. Errors:
  //   kUnavailable        not resolved, not connected, reset, TLS broke off: worth another try
  //   kDeadlineExceeded   too slow: worth another try
  //   kDataLoss           the body ended early: worth another try, from where it ended
  //   kPermissionDenied   an address, plain http or a redirect that the policy refuses
  //   kFailedPrecondition the server's certificate is not believed
  //   kInvalidArgument    the URL or a header
  //   kResourceExhausted  the body or the headers are too large
  //   kCancelled          `stop` said so; the reason is CANCELLED
  // or what `on_head` or `sink` returned.
  absl::StatusOr<Response> Do(const Request& request);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bunker::http
