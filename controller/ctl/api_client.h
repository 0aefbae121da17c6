// Speaks to the controller's REST API: the key, the envelope, pages, event streams.
//
// Not thread-safe: one command, one client.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/http/http_client.h"
#include "controller/ctl/sse_parser.h"
#include "nlohmann/json_fwd.hpp"

namespace bunker::ctl {

// An error answer keeps the code of the API as the status's reason (common/base/reason.h) and
// says "CODE: message" with the request id behind it.
class ApiClient {
 public:
  struct Options {
    std::string host;  // "http://127.0.0.1:7480"
    std::string key;
    std::string ca_file;
  };
  explicit ApiClient(Options options);
  ~ApiClient();

  // Calls `path`, written below the module's mount point ("/images/r-stats") or whole
  // ("/v1/users"), and returns the
  // envelope's `data`. `body` is sent as JSON unless it is null. `timeout` bounds the whole call.
  absl::StatusOr<nlohmann::json> Call(const std::string& method, const std::string& path,
                                      const nlohmann::json& body, absl::Duration timeout);
  absl::StatusOr<nlohmann::json> Get(const std::string& path);

  // All pages of a list, as one array.
  absl::StatusOr<nlohmann::json> List(const std::string& path);

  // Sends the bytes that `source` gives (http::Request::source) and returns the envelope's `data`.
  absl::StatusOr<nlohmann::json> Upload(
      const std::string& path, std::optional<uint64_t> bytes,
      std::function<absl::StatusOr<size_t>(char* room, size_t size)> source);

  // Hands the bytes of the answer to `sink`. INVALID_ARGUMENT where it is not bytes, but rows.
  absl::Status Download(const std::string& path,
                        std::function<absl::Status(std::string_view)> sink);

  // Reads an event stream until `on_event` returns false, the server ends it or `deadline`.
  // An event named "error" ends it with that error.
  absl::Status Stream(const std::string& path, absl::Time deadline,
                      const std::function<bool(const SseEvent&)>& on_event);

  // The last error answer's `error` object, for --json.
  const nlohmann::json& last_error() const { return *last_error_; }

 private:
  absl::StatusOr<nlohmann::json> Envelope(const http::Request& request);
  absl::Status ErrorOf(const http::Response& response);
  http::Request NewRequest(const std::string& method, const std::string& path) const;

  const Options options_;
  http::Client client_;
  std::unique_ptr<nlohmann::json> last_error_;
};

// One path segment, safe whatever the user typed.
std::string Segment(const std::string& text);

}  // namespace bunker::ctl
