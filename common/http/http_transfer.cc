#include "common/http/http_transfer.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <mutex>

#include "common/base/converters.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/http/address_filter.h"

namespace bunker::http {
namespace {
constexpr size_t kMaxHeaderBytes = 64u << 10;
constexpr size_t kMaxErrorBodyBytes = 64u << 10;
constexpr int kPollMs = 100;

bool IsToken(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) ||
           std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string_view::npos;
  });
}

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())))
    text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())))
    text.remove_suffix(1);
  return text;
}

// Sets options on one handle and remembers the first that failed (memory, most likely): some of
// them are what keeps a transfer safe.
class Options {
 public:
  explicit Options(CURL* easy) : easy_(easy) {}
  template <typename T>
  void Set(CURLoption option, T value) {
    const CURLcode code = curl_easy_setopt(easy_, option, value);
    if (code == CURLE_OK || !status_.ok()) return;
    status_ = absl::InternalError("setting option " + std::to_string(option) +
                                  " of libcurl: " + curl_easy_strerror(code));
  }
  const absl::Status& status() const { return status_; }

 private:
  CURL* const easy_;
  absl::Status status_;
};
}  // namespace

CurlPair::CurlPair() {
  static std::once_flag once;
  std::call_once(once, [] { BUNKER_CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK); });
  multi = curl_multi_init();
  easy = curl_easy_init();
  BUNKER_CHECK(multi != nullptr && easy != nullptr);
  curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, 4L);
}

CurlPair::~CurlPair() {
  curl_easy_cleanup(easy);
  curl_multi_cleanup(multi);
}

// Through a proxy the address is the proxy's, which the operator chose.
bool Transfer::IsFiltered() const {
  return !hop_.policy.any_address && proxy_.empty() && hop_.request->unix_socket.empty();
}

size_t Transfer::OnHeader(char* data, size_t size, size_t count, void* self) {
  return static_cast<Transfer*>(self)->HeaderLine({data, size * count}) ? size * count : 0;
}

size_t Transfer::OnBody(char* data, size_t size, size_t count, void* self) {
  return static_cast<Transfer*>(self)->BodyPiece({data, size * count}) ? size * count : 0;
}

size_t Transfer::OnSource(char* room, size_t size, size_t count, void* opaque) {
  auto* self = static_cast<Transfer*>(opaque);
  const auto before = std::chrono::steady_clock::now();
  const absl::StatusOr<size_t> filled = self->hop_.request->source(room, size * count);
  self->stretch_start_ += std::chrono::steady_clock::now() - before;  // not the peer's time
  if (!filled.ok()) {
    self->verdict_ = filled.status();
    return CURL_READFUNC_ABORT;
  }
  self->sent_bytes_ += *filled;
  return *filled;
}

curl_socket_t Transfer::OnOpenSocket(void* opaque, curlsocktype, curl_sockaddr* address) {
  auto* self = static_cast<Transfer*>(opaque);
  if (self->IsFiltered()) {
    const std::string why = RefusalOf(&address->addr);
    if (!why.empty()) {
      self->refused_ = AddressText(&address->addr) + " is " + why;
      return CURL_SOCKET_BAD;
    }
  }
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

// Runs once there is a connection, an old one too, and before the request is sent on it. The
// filter knows the addresses of this host's interfaces; what the kernel routes to itself besides
// (a local route) shows by both ends having one address.
int Transfer::OnConnected(void* opaque, char* peer, char* own, int, int) {
  auto* self = static_cast<Transfer*>(opaque);
  if (!self->IsFiltered()) return CURL_PREREQFUNC_OK;
  std::string why = RefusalOfHost(peer);
  if (why.empty() && std::string_view(peer) == own) why = "an address of this host";
  if (why.empty()) return CURL_PREREQFUNC_OK;
  self->refused_ = std::string(peer) + " is " + why;
  return CURL_PREREQFUNC_ABORT;
}

bool Transfer::HeaderLine(std::string_view line) {
  header_bytes_ += line.size();
  if (header_bytes_ > kMaxHeaderBytes) {
    verdict_ = absl::ResourceExhaustedError("the response has more than 64 KiB of headers");
    return false;
  }
  if (line.substr(0, 5) == "HTTP/") {  // a new head: after 100 Continue, or a proxy's CONNECT
    response_.headers.clear();
    return true;
  }
  if (Trimmed(line).empty()) return HeadersDone();
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || head_seen_) return true;  // folded lines and trailers
  std::string name(line.substr(0, colon));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  response_.headers.emplace_back(std::move(name), std::string(Trimmed(line.substr(colon + 1))));
  return true;
}

bool Transfer::HeadersDone() {
  long status = 0;
  curl_easy_getinfo(pair_.easy, CURLINFO_RESPONSE_CODE, &status);
  if (head_seen_ || status == 0 || status / 100 == 1) return true;
  head_seen_ = true;
  response_.status = static_cast<int>(status);
  response_.url = hop_.url.text;
  const bool redirect =
      status / 100 == 3 && hop_.may_redirect && !response_.Header("location").empty();
  if (redirect) return true;
  to_sink_ = status / 100 == 2 && hop_.request->sink != nullptr;
  if (hop_.request->on_head) {
    verdict_ = hop_.request->on_head(response_);
    if (!verdict_.ok()) return false;
  }
  return true;
}

bool Transfer::BodyPiece(std::string_view piece) {
  if (piece.empty()) return true;
  body_bytes_ += piece.size();
  if (response_.status / 100 != 2) {
    const size_t room = kMaxErrorBodyBytes - std::min(kMaxErrorBodyBytes, response_.body.size());
    response_.body.append(piece.substr(0, room));
    // An endless error page is cut off; what it said so far is answer enough.
    if (body_bytes_ > kMaxErrorBodyBytes) {
      verdict_ = absl::OutOfRangeError("error page");
      return false;
    }
    return true;
  }
  if (body_bytes_ > hop_.request->max_body_bytes) {
    verdict_ = absl::ResourceExhaustedError(
        "the response is larger than " + std::to_string(hop_.request->max_body_bytes) + " bytes");
    return false;
  }
  if (!to_sink_) {
    response_.body.append(piece);
    return true;
  }
  const auto before = std::chrono::steady_clock::now();
  verdict_ = hop_.request->sink(piece);
  stretch_start_ += std::chrono::steady_clock::now() - before;  // not the peer's time
  return verdict_.ok();
}

bool Transfer::TooSlow() {
  const uint64_t limit = hop_.request->low_speed_bytes_per_s;
  if (limit == 0) return false;
  const auto now = std::chrono::steady_clock::now();
  const double seconds = std::chrono::duration<double>(now - stretch_start_).count();
  if (seconds < absl::ToDoubleSeconds(hop_.request->low_speed_time)) return false;
  const uint64_t bytes = body_bytes_ + sent_bytes_ - stretch_bytes_;
  stretch_start_ = now;
  stretch_bytes_ += bytes;
  if (static_cast<double>(bytes) >= static_cast<double>(limit) * seconds) return false;
  verdict_ = absl::DeadlineExceededError(hop_.url.scheme + "://" + hop_.url.HostPort() + ": only " +
                                         std::to_string(bytes) + " bytes came within " +
                                         std::to_string(static_cast<int>(seconds)) +
                                         " s, less than " + std::to_string(limit) + " a second");
  return true;
}

absl::Status Transfer::SetHeaders() {
  const auto add = [this](const std::string& line) {
    curl_slist* list = curl_slist_append(header_list_, line.c_str());
    if (list != nullptr) header_list_ = list;
  };
  for (const auto& [name, value] : hop_.headers) {
    if (!IsToken(name) || value.find_first_of(std::string_view("\r\n\0", 3)) != std::string::npos)
      return absl::InvalidArgumentError("the header " + name + " holds a line break or a NUL");
    add(value.empty() ? name + ";" : name + ": " + value);
  }
  // No extra round trip before a body; one that may be large waits for a refusal first.
  if (hop_.request->source == nullptr) add("Expect:");
  Options options(pair_.easy);
  options.Set(CURLOPT_HTTPHEADER, header_list_);
  return options.status();
}

absl::Status Transfer::Configure() {
  Options options(pair_.easy);
  const Request& request = *hop_.request;
  curl_easy_reset(pair_.easy);
  options.Set(CURLOPT_ERRORBUFFER, error_);
  options.Set(CURLOPT_NOSIGNAL, 1L);
  options.Set(CURLOPT_URL, hop_.url.text.c_str());
  options.Set(CURLOPT_PROTOCOLS_STR, "http,https");
  options.Set(CURLOPT_FOLLOWLOCATION, 0L);
  options.Set(CURLOPT_HTTPAUTH, static_cast<long>(CURLAUTH_NONE));
  options.Set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  options.Set(CURLOPT_USERAGENT, hop_.options->user_agent.c_str());
  options.Set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  if (!hop_.policy.ca_file.empty()) {
    options.Set(CURLOPT_CAINFO, hop_.policy.ca_file.c_str());
    options.Set(CURLOPT_CAPATH, static_cast<char*>(nullptr));
  }
  proxy_ = request.unix_socket.empty() ? ProxyFor(hop_.options->proxy, hop_.url) : "";
  options.Set(CURLOPT_PROXY, proxy_.c_str());  // "" also switches the environment's off
  options.Set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  if (!request.unix_socket.empty())
    options.Set(CURLOPT_UNIX_SOCKET_PATH, request.unix_socket.c_str());
  options.Set(CURLOPT_OPENSOCKETFUNCTION, &Transfer::OnOpenSocket);
  options.Set(CURLOPT_OPENSOCKETDATA, this);
  options.Set(CURLOPT_PREREQFUNCTION, &Transfer::OnConnected);
  options.Set(CURLOPT_PREREQDATA, this);
  options.Set(CURLOPT_HEADERFUNCTION, &Transfer::OnHeader);
  options.Set(CURLOPT_HEADERDATA, this);
  options.Set(CURLOPT_WRITEFUNCTION, &Transfer::OnBody);
  options.Set(CURLOPT_WRITEDATA, this);
  curl_easy_setopt(pair_.easy, CURLOPT_BUFFERSIZE, 256L * 1024);  // a matter of speed alone
  options.Set(CURLOPT_CONNECTTIMEOUT_MS,
              static_cast<long>(absl::ToInt64Milliseconds(request.connect_timeout)));
  if (request.total_timeout != absl::InfiniteDuration()) {
    options.Set(CURLOPT_TIMEOUT_MS,
                static_cast<long>(absl::ToInt64Milliseconds(request.total_timeout)));
  }
  if (request.method == "HEAD") {
    options.Set(CURLOPT_NOBODY, 1L);
  } else if (request.source != nullptr) {
    options.Set(CURLOPT_UPLOAD, 1L);
    options.Set(CURLOPT_READFUNCTION, &Transfer::OnSource);
    options.Set(CURLOPT_READDATA, this);
    options.Set(CURLOPT_UPLOAD_BUFFERSIZE, 256L * 1024);
    if (request.source_bytes)
      options.Set(CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(*request.source_bytes));
  } else if (request.method != "GET") {
    if (!request.body.empty() || request.method == "POST" || request.method == "PUT" ||
        request.method == "PATCH") {
      options.Set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
      options.Set(CURLOPT_POSTFIELDS, request.body.data());
    }
    options.Set(CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }
  RETURN_IF_ERROR(options.status());
  return SetHeaders();
}

CURLcode Transfer::Drive() {
  stretch_start_ = std::chrono::steady_clock::now();
  curl_multi_add_handle(pair_.multi, pair_.easy);
  CURLcode result = CURLE_OK;
  for (bool done = false; !done;) {
    int running = 0;
    if (curl_multi_perform(pair_.multi, &running) != CURLM_OK) {
      result = CURLE_FAILED_INIT;
      break;
    }
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(pair_.multi, &left)) {
      if (message->msg == CURLMSG_DONE) {
        result = message->data.result;
        done = true;
      }
    }
    if (done) break;
    if (hop_.request->stop && hop_.request->stop()) {
      verdict_ = ReasonError(absl::StatusCode::kCancelled, "CANCELLED",
                             "the request was cancelled because its result is no longer wanted");
      result = CURLE_ABORTED_BY_CALLBACK;
      break;
    }
    if (TooSlow()) {
      result = CURLE_ABORTED_BY_CALLBACK;
      break;
    }
    curl_multi_poll(pair_.multi, nullptr, 0, kPollMs, nullptr);
  }
  curl_multi_remove_handle(pair_.multi, pair_.easy);
  return result;
}

absl::Status Transfer::StatusOf(CURLcode code) const {
  const std::string where = hop_.url.scheme + "://" + hop_.url.HostPort();
  const std::string why = error_[0] != '\0' ? error_ : curl_easy_strerror(code);
  if (!refused_.empty() && (code == CURLE_COULDNT_CONNECT || code == CURLE_ABORTED_BY_CALLBACK)) {
    return absl::PermissionDeniedError(
        where + ": " + refused_ + ", which is refused unless the configuration lists the host");
  }
  if (connect_status_ / 100 > 2) {
    return absl::UnavailableError(
        where + ": the proxy answered " + std::to_string(connect_status_) +
        (connect_status_ == 407 ? ": put the credentials that it wants into its URL"
                                : ": check that it lets this host through"));
  }
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
      return absl::FailedPreconditionError(where + ": " + why);
    case CURLE_SSL_CONNECT_ERROR:
      return absl::UnavailableError(where + ": " + why +
                                    " (a server without TLS must be configured as such)");
    case CURLE_OPERATION_TIMEDOUT:
      return absl::DeadlineExceededError(where + ": " + why);
    case CURLE_PARTIAL_FILE:
      return absl::DataLossError(where + ": " + why);
    case CURLE_OUT_OF_MEMORY:  // also what libcurl says of one endless header line
      return absl::ResourceExhaustedError(where + ": " + why);
    case CURLE_HTTP2_STREAM:
    case CURLE_HTTP2:
    case CURLE_RECV_ERROR:
      // The server's reset in the middle of a body is a cut as much as a short body is.
      return body_bytes_ > 0 ? absl::DataLossError(where + ": " + why)
                             : absl::UnavailableError(where + ": " + why);
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
      return absl::InvalidArgumentError(where + ": " + why);
    default:
      return absl::UnavailableError(where + ": " + why);
  }
}

absl::StatusOr<Response> Transfer::Run() {
  const absl::Status ready = Configure();
  const CURLcode code = ready.ok() ? Drive() : CURLE_OK;
  curl_easy_getinfo(pair_.easy, CURLINFO_HTTP_CONNECTCODE, &connect_status_);
  // The handle outlives this object: it must not keep pointers into it.
  curl_easy_reset(pair_.easy);
  curl_slist_free_all(header_list_);
  RETURN_IF_ERROR(ready);
  if (!verdict_.ok() && verdict_.code() != absl::StatusCode::kOutOfRange) return verdict_;
  if (code != CURLE_OK && verdict_.ok()) return StatusOf(code);
  if (!head_seen_) return absl::UnavailableError(hop_.url.HostPort() + ": no response");
  return std::move(response_);
}

}  // namespace bunker::http
