#include "controller/ctl/api_client.h"

#include <limits>
#include <utility>

#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/http/url.h"
#include "controller/ctl/format.h"
#include "controller/ctl/json_read.h"
#include "nlohmann/json.hpp"

namespace bunker::ctl {
namespace {

using Json = nlohmann::json;

constexpr char kMount[] = "/v1/modules/scaibunker";
constexpr uint64_t kBodyBytesMax = uint64_t{64} << 20;
constexpr int kPagesMax = 10000;

http::ClientOptions HttpOptions(const std::string& ca_file) {
  http::ClientOptions options;
  options.user_agent = "bunkerctl";
  options.policy = [ca_file](const http::Url&) {
    http::HopPolicy policy;
    policy.plain_http = true;  // the user typed the scheme
    policy.any_address = true;
    policy.ca_file = ca_file;
    return policy;
  };
  return options;
}

absl::StatusCode CodeOf(int http_status) {
  switch (http_status) {
    case 401:
      return absl::StatusCode::kUnauthenticated;
    case 403:
      return absl::StatusCode::kPermissionDenied;
    case 404:
      return absl::StatusCode::kNotFound;
    case 409:
      return absl::StatusCode::kFailedPrecondition;
    case 422:
      return absl::StatusCode::kInvalidArgument;
    case 429:
      return absl::StatusCode::kResourceExhausted;
    case 503:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kUnknown;
  }
}

// A transfer may take as long as it wants, but not without a byte; the server gives up earlier.
void BoundSilence(http::Request* request) {
  request->low_speed_bytes_per_s = 1;
  request->low_speed_time = absl::Minutes(15);
}

// What an event named "error" says. UNAVAILABLE is worth another try.
absl::Status StreamError(const std::string& data) {
  const Json error = Json::parse(data, nullptr, /*allow_exceptions=*/false);
  const std::string code = TextAt(error, "code");
  return ReasonError(
      code == "UNAVAILABLE" ? absl::StatusCode::kUnavailable : absl::StatusCode::kUnknown, code,
      code + ": " + TextAt(error, "message"));
}

// The placement errors say for each worker why not.
std::string DetailsOf(const Json& error) {
  std::string text;
  const auto details = error.find("details");
  if (details == error.end() || !details->is_array()) return text;
  for (const Json& row : *details) {
    const std::string field = TextAt(row, "field");
    if (!field.empty()) {
      text += "\n  " + field + ": " + TextAt(row, "message");
    } else {
      text += "\n  " + TextAt(row, "worker_name") + ": " + TextAt(row, "predicate") + " " +
              TextAt(row, "shortfall");
      const std::string remedy = TextAt(row, "remedy");
      if (!remedy.empty()) text += " (" + remedy + ")";
    }
  }
  return text;
}

}  // namespace

ApiClient::ApiClient(Options options)
    : options_(std::move(options)),
      client_(HttpOptions(options_.ca_file)),
      last_error_(std::make_unique<Json>()) {}

ApiClient::~ApiClient() = default;

http::Request ApiClient::NewRequest(const std::string& method, const std::string& path) const {
  http::Request request;
  request.method = method;
  request.url = options_.host + (path.rfind("/v1/", 0) == 0 ? "" : kMount) + path;
  request.headers = {{"Authorization", "Bearer " + options_.key}, {"Accept", "application/json"}};
  request.low_speed_bytes_per_s = 0;  // a waiting call says nothing for a while
  request.max_body_bytes = kBodyBytesMax;
  return request;
}

absl::Status ApiClient::ErrorOf(const http::Response& response) {
  const Json body = Json::parse(response.body, nullptr, /*allow_exceptions=*/false);
  const std::string code = TextAt(body, "error.code");
  if (code.empty()) {
    return absl::UnknownError("HTTP " + std::to_string(response.status) + " from " + response.url +
                              " without an error body: is SCAIGRID_HOST the controller?");
  }
  *last_error_ = body["error"];
  std::string message = code + ": " + TextAt(body, "error.message") + DetailsOf(*last_error_);
  const std::string request_id = TextAt(body, "meta.request_id");
  if (!request_id.empty()) message += "\n  (request " + request_id + ")";
  return ReasonError(CodeOf(response.status), code, message);
}

absl::StatusOr<Json> ApiClient::Envelope(const http::Request& request) {
  absl::StatusOr<http::Response> response = client_.Do(request);
  if (!response.ok()) {
    return Annotate(response.status(),
                    "cannot reach the controller at " + options_.host + " (SCAIGRID_HOST)");
  }
  if (response->status < 200 || response->status > 299) return ErrorOf(*response);
  Json body = Json::parse(response->body, nullptr, /*allow_exceptions=*/false);
  if (!body.is_object() || !body.contains("data")) {
    return absl::UnknownError("the answer of " + request.url +
                              " is no envelope: is SCAIGRID_HOST the controller?");
  }
  return body;
}

absl::StatusOr<Json> ApiClient::Call(const std::string& method, const std::string& path,
                                     const Json& body, absl::Duration timeout) {
  http::Request request = NewRequest(method, path);
  request.total_timeout = timeout;
  if (!body.is_null()) {
    if (const std::string at = NotUtf8At(body); !at.empty()) {
      return absl::InvalidArgumentError(
          Printable(at) + " holds bytes that are no UTF-8, which the API can't carry: send it as "
          "base64 and decode it inside, as in `base64 FILE | bunkerctl exec -i BUNKER -- "
          "sh -c 'base64 -d >FILE'`");
    }
    request.headers.emplace_back("Content-Type", "application/json");
    request.body = body.dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  ASSIGN_OR_RETURN(Json envelope, Envelope(request));
  return std::move(envelope["data"]);
}

absl::StatusOr<Json> ApiClient::Get(const std::string& path) {
  return Call("GET", path, nullptr, absl::Seconds(30));
}

absl::StatusOr<Json> ApiClient::List(const std::string& path) {
  Json rows = Json::array();
  std::string cursor;
  for (int page = 0; page < kPagesMax; ++page) {
    const char* separator = path.find('?') == std::string::npos ? "?" : "&";
    std::string url = path + separator + "limit=200";
    if (!cursor.empty()) url += "&cursor=" + Segment(cursor);
    http::Request request = NewRequest("GET", url);
    request.total_timeout = absl::Seconds(30);
    ASSIGN_OR_RETURN(const Json envelope, Envelope(request));
    for (const Json& row : envelope["data"]) rows.push_back(row);
    cursor = TextAt(envelope, "next_cursor");
    if (!TrueAt(envelope, "has_more") || cursor.empty()) return rows;
  }
  return absl::ResourceExhaustedError("the list does not end");
}

absl::StatusOr<Json> ApiClient::Upload(
    const std::string& path, std::optional<uint64_t> bytes,
    std::function<absl::StatusOr<size_t>(char* room, size_t size)> source) {
  http::Request request = NewRequest("PUT", path);
  request.source = std::move(source);
  request.source_bytes = bytes;
  BoundSilence(&request);
  ASSIGN_OR_RETURN(Json envelope, Envelope(request));
  return std::move(envelope["data"]);
}

absl::Status ApiClient::Download(const std::string& path,
                                 std::function<absl::Status(std::string_view)> sink) {
  http::Request request = NewRequest("GET", path);
  request.headers[1].second = "*/*";
  request.max_body_bytes = std::numeric_limits<uint64_t>::max();
  request.sink = std::move(sink);
  request.on_head = [](const http::ResponseHead& head) -> absl::Status {
    const bool is_rows = head.status == 200 && head.Header("content-type") == "application/json";
    if (!is_rows) return absl::OkStatus();
    return absl::InvalidArgumentError(
        "that is a folder: name a file, or copy the folder as a tar with --tar");
  };
  BoundSilence(&request);
  absl::StatusOr<http::Response> response = client_.Do(request);
  if (!response.ok()) return Annotate(response.status(), "reading from " + options_.host);
  return response->status == 200 ? absl::OkStatus() : ErrorOf(*response);
}

absl::Status ApiClient::Stream(const std::string& path, absl::Time deadline,
                               const std::function<bool(const SseEvent&)>& on_event) {
  http::Request request = NewRequest("GET", path);
  request.headers[1].second = "text/event-stream";
  request.total_timeout = deadline - absl::Now();
  SseParser parser;
  bool enough = false;
  absl::Status failed;
  request.sink = [&](std::string_view piece) -> absl::Status {
    std::vector<SseEvent> events;
    RETURN_IF_ERROR(parser.Feed(piece, &events));
    for (const SseEvent& event : events) {
      if (event.event == "error") {
        failed = StreamError(event.data);
        return failed;
      }
      if (!on_event(event)) {
        enough = true;
        return absl::CancelledError("enough");
      }
    }
    return absl::OkStatus();
  };
  absl::StatusOr<http::Response> response = client_.Do(request);
  if (enough) return absl::OkStatus();
  if (!failed.ok()) return failed;
  if (!response.ok()) return Annotate(response.status(), "watching " + options_.host);
  if (response->status != 200) return ErrorOf(*response);
  return absl::OkStatus();
}

std::string Segment(const std::string& text) {
  // A segment of dots would be taken out of the path on its way; its escape the server refuses.
  if (text == ".") return "%2E";
  if (text == "..") return "%2E%2E";
  return http::PercentEncode(text);
}

}  // namespace bunker::ctl
