#include "common/http/http_client.h"

#include <charconv>

#include "common/base/converters.h"
#include "common/base/mutex.h"
#include "common/base/status_macros.h"
#include "common/http/address_filter.h"
#include "common/http/http_transfer.h"

namespace bunker::http {
namespace {
constexpr size_t kMaxIdleHandles = 8;

bool IsRedirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

bool IsCredential(std::string_view name) {
  static constexpr std::string_view kNames[] = {"authorization", "cookie", "proxy-authorization"};
  for (const std::string_view candidate : kNames) {
    if (name.size() == candidate.size() &&
        std::equal(name.begin(), name.end(), candidate.begin(),
                   [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + 32 : a) == b; }))
      return true;
  }
  return false;
}
}  // namespace

std::string ResponseHead::Header(std::string_view lower_case_name) const {
  for (const auto& [name, value] : headers) {
    if (name == lower_case_name) return value;
  }
  return "";
}

std::string ResponseHead::AllOf(std::string_view lower_case_name) const {
  std::string all;
  for (const auto& [name, value] : headers) {
    if (name == lower_case_name) all += (all.empty() ? "" : ", ") + value;
  }
  return all;
}

std::optional<uint64_t> ResponseHead::ContentLength() const {
  const std::string text = Header("content-length");
  uint64_t length = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return length;
}

class Client::Impl {
 public:
  explicit Impl(ClientOptions options) : options_(std::move(options)) {}

  absl::StatusOr<Response> Do(const Request& request) {
    ASSIGN_OR_RETURN(Url url, ParseUrl(request.url));
    Headers headers = request.headers;
    const bool follows =
        request.max_redirects > 0 && (request.method == "GET" || request.method == "HEAD");
    for (int hops = 0;; ++hops) {
      ASSIGN_OR_RETURN(HopPolicy policy, PolicyFor(url, request));
      ASSIGN_OR_RETURN(Response response,
                       OneHop({&request, &options_, url, std::move(policy), headers, follows}));
      const std::string location = response.Header("location");
      if (!follows || !IsRedirect(response.status) || location.empty()) return response;
      if (hops == request.max_redirects) {
        return absl::PermissionDeniedError(url.HostPort() + " redirects more than " +
                                           std::to_string(request.max_redirects) + " times");
      }
      ASSIGN_OR_RETURN(Url next, ResolveUrl(url, location));
      if (url.scheme == "https" && next.scheme == "http") {
        return absl::PermissionDeniedError(url.HostPort() +
                                           " redirects from https to plain http (" +
                                           next.HostPort() + "), which is refused");
      }
      if (!SameOrigin(url, next)) {
        std::erase_if(headers, [](const auto& header) { return IsCredential(header.first); });
      }
      url = std::move(next);
    }
  }

 private:
  absl::StatusOr<HopPolicy> PolicyFor(const Url& url, const Request& request) {
    if (!options_.policy || !request.unix_socket.empty())
      return HopPolicy{.plain_http = true, .any_address = true, .ca_file = ""};
    HopPolicy policy = options_.policy(url);
    if (url.scheme == "http" && !policy.plain_http) {
      return absl::PermissionDeniedError("http://" + url.HostPort() +
                                         ": plain http is refused unless the configuration allows "
                                         "it for this host");
    }
    if (!policy.any_address) {
      // Also said of literals behind a proxy, where no socket of ours would tell.
      const std::string why = RefusalOfHost(url.BareHost());
      if (!why.empty()) {
        return absl::PermissionDeniedError(url.HostPort() + " is " + why +
                                           ", which is refused unless the configuration lists the "
                                           "host");
      }
    }
    return policy;
  }

  absl::StatusOr<Response> OneHop(Transfer::Hop hop) {
    std::unique_ptr<CurlPair> pair = Take();
    auto response = Transfer(*pair, std::move(hop)).Run();
    // A handle that was stopped half-way is not worth finding out what state it is in.
    if (response.ok()) Give(std::move(pair));
    return response;
  }

  std::unique_ptr<CurlPair> Take() {
    MutexLock lock(mutex_);
    if (idle_.empty()) return std::make_unique<CurlPair>();
    std::unique_ptr<CurlPair> pair = std::move(idle_.back());
    idle_.pop_back();
    return pair;
  }

  void Give(std::unique_ptr<CurlPair> pair) {
    MutexLock lock(mutex_);
    if (idle_.size() < kMaxIdleHandles) idle_.push_back(std::move(pair));
  }

  const ClientOptions options_;
  Mutex mutex_;
  std::vector<std::unique_ptr<CurlPair>> idle_ ABSL_GUARDED_BY(mutex_);
};

Client::Client(ClientOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Client::~Client() = default;

absl::StatusOr<Response> Client::Do(const Request& request) {
  return impl_->Do(request);
}

}  // namespace bunker::http
