#include "agent/pull/registry_client.h"

#include <algorithm>
#include <charconv>

#include "absl/time/clock.h"
#include "agent/pull/pull_error.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {
constexpr int kMaxSignIns = 3;
constexpr int kMaxRedirects = 5;
constexpr uint64_t kGainThatCounts = 1u << 20;

struct ContentRange {
  uint64_t first = 0;
  uint64_t last = 0;
  std::optional<uint64_t> total;
};

std::optional<ContentRange> ParseContentRange(const std::string& text) {
  if (text.compare(0, 6, "bytes ") != 0) return std::nullopt;
  ContentRange range;
  const char* at = text.data() + 6;
  const char* const end = text.data() + text.size();
  const auto number = [&](uint64_t* value) {
    const auto [next, error] = std::from_chars(at, end, *value);
    at = next;
    return error == std::errc();
  };
  if (!number(&range.first) || at == end || *at++ != '-') return std::nullopt;
  if (!number(&range.last) || at == end || *at++ != '/') return std::nullopt;
  if (at != end && *at == '*' && at + 1 == end) return range;
  range.total.emplace();
  if (!number(&*range.total) || at != end) return std::nullopt;
  return range;
}

absl::Status OtherContent(const std::string& subject, uint64_t bytes, uint64_t declared_bytes) {
  return ReasonError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                     subject + ": the registry sent other content (" + std::to_string(bytes) +
                         " bytes, declared " + std::to_string(declared_bytes) +
                         "): check its storage, or push the image again");
}
}  // namespace

// The state of one blob's download over its tries.
struct RegistryClient::BlobAttempt {
  const oci::Digest& digest;
  const uint64_t size_bytes;
  oci::BlobWriter& writer;
  const StopFn& stop;
  const std::function<void(uint64_t)>& on_bytes;
  std::string subject;
  bool no_range = false;  // the registry's ranges are not to be trusted: whole or nothing
  std::string retry_after;
};

RegistryClient::RegistryClient(const PullConfig& config, RegistryEndpoint endpoint,
                               oci::Reference reference, http::Client* client,
                               FetchLimiter* limiter)
    : config_(config),
      endpoint_(std::move(endpoint)),
      reference_(std::move(reference)),
      client_(client),
      limiter_(limiter),
      auth_(endpoint_, reference_.repository, client, config.small_request_timeout) {}

std::string RegistryClient::Subject() const {
  return reference_.ToString();
}

http::Request RegistryClient::NewRequest(const std::string& path) const {
  http::Request request;
  request.url = endpoint_.base_url + "/v2/" + reference_.repository + path;
  // What a digest is of is what is stored: nothing may compress it on the way.
  request.headers.emplace_back("Accept-Encoding", "identity");
  request.connect_timeout = config_.connect_timeout;
  request.low_speed_bytes_per_s = config_.low_speed_bytes_per_s;
  request.low_speed_time = config_.low_speed_time;
  request.max_redirects = kMaxRedirects;
  return request;
}

absl::StatusOr<http::Response> RegistryClient::Send(http::Request request, const StopFn& stop,
                                                    std::string* retry_after) {
  request.stop = stop;
  const http::Headers plain = request.headers;
  for (int sign_ins = 0;; ++sign_ins) {
    const std::string authorization = auth_.Header();
    request.headers = plain;
    if (!authorization.empty()) request.headers.emplace_back("Authorization", authorization);
    ASSIGN_OR_RETURN(http::Response response, client_->Do(request));
    *retry_after = response.Header("retry-after");
    if (response.status / 100 >= 4) LeaveAlone(*retry_after);
    if (response.status != 401 || sign_ins == kMaxSignIns) return response;
    // A host that the registry redirected to has no say in where credentials go.
    const auto last = http::ParseUrl(response.url);
    if (!last.ok() || !http::SameOrigin(*last, endpoint_.origin)) return response;
    const absl::Status signed_in = auth_.OnUnauthorized(response, authorization, stop, retry_after);
    if (signed_in.ok()) continue;
    LeaveAlone(*retry_after);
    return signed_in;
  }
}

absl::Duration RegistryClient::DelayAfter(const std::string& retry_after, int failed_tries) const {
  const absl::Duration backoff = BackoffDelay(config_.first_backoff, failed_tries);
  const auto asked = ParseRetryAfter(retry_after, absl::Now(), config_.retry_after_cap);
  return asked ? std::max(*asked, backoff) : backoff;
}

void RegistryClient::LeaveAlone(const std::string& retry_after) {
  const auto asked = ParseRetryAfter(retry_after, absl::Now(), config_.retry_after_cap);
  if (asked) limiter_->Pause(endpoint_.host, *asked);
}

absl::Status RegistryClient::ErrorOf(const http::Response& response,
                                     const std::string& subject) const {
  return ErrorOfAnswer(response, subject,
                       [this](std::string text) { return auth_.Scrub(std::move(text)); });
}

absl::StatusOr<http::Response> RegistryClient::SendWithRetries(const http::Request& request,
                                                               const std::string& subject,
                                                               const StopFn& stop) {
  for (int tries = 1;; ++tries) {
    absl::Status error;
    std::string retry_after;
    {
      ASSIGN_OR_RETURN(const auto slot, limiter_->Acquire(endpoint_.host, owner_, stop));
      auto response = Send(request, stop, &retry_after);
      if (response.ok() && response->status == 200) return response;
      error = response.ok() ? ErrorOf(*response, subject)
                            : ErrorOfTransport(response.status(), subject);
    }
    if (!IsWorthAnotherTry(error) || tries >= static_cast<int>(config_.max_tries)) return error;
    RETURN_IF_ERROR(WaitUnlessStopped(DelayAfter(retry_after, tries - 1), stop));
  }
}

absl::Status RegistryClient::CheckSmallHead(const http::ResponseHead& head,
                                            const std::string& subject) {
  const std::string encoding = head.Header("content-encoding");
  if (head.status != 200 || encoding.empty() || encoding == "identity") return absl::OkStatus();
  return ReasonError(absl::StatusCode::kDataLoss, "LAYER_CORRUPT",
                     subject +
                         ": the registry sends it in another encoding than it is stored in: "
                         "check its configuration and proxies between");
}

absl::StatusOr<FetchedManifest> RegistryClient::GetManifest(const oci::Digest& digest,
                                                            const StopFn& stop) {
  http::Request request =
      NewRequest("/manifests/" + (digest.empty() ? reference_.tag : digest.str()));
  request.headers.emplace_back("Accept", oci::ManifestAccept());
  request.total_timeout = config_.small_request_timeout;
  request.max_body_bytes = oci::kMaxManifestBytes;
  request.on_head = [this](const auto& head) { return CheckSmallHead(head, Subject()); };
  ASSIGN_OR_RETURN(http::Response response, SendWithRetries(request, Subject(), stop));
  FetchedManifest manifest;
  manifest.content_type = response.Header("content-type");
  manifest.digest = oci::Digest::Of(response.body);
  manifest.body = std::move(response.body);
  // Schema 1 has the digest of its inner part, not of the body; it is refused for what it is.
  oci::Digest wanted = digest;
  const bool schema1 = oci::ManifestTypeOf(manifest.content_type) == oci::MediaType::kDockerSchema1;
  if (wanted.empty() && !schema1) {  // a tag: what the registry says of the body must be true
    const auto claimed = oci::Digest::Parse(response.Header("docker-content-digest"));
    if (claimed.ok()) wanted = *claimed;
  }
  if (!wanted.empty() && wanted != manifest.digest) {
    return ReasonError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                       Subject() + ": the manifest has the digest " + manifest.digest.str() +
                           " where " + wanted.str() +
                           " was asked for: check the registry's "
                           "storage and what lies between, or push the image again");
  }
  return manifest;
}

absl::StatusOr<oci::Digest> RegistryClient::LookUpTag(const StopFn& stop) {
  http::Request request = NewRequest("/manifests/" + reference_.tag);
  request.method = "HEAD";
  request.headers.emplace_back("Accept", oci::ManifestAccept());
  request.total_timeout = config_.small_request_timeout;
  ASSIGN_OR_RETURN(const http::Response response, SendWithRetries(request, Subject(), stop));
  const std::string digest = response.Header("docker-content-digest");
  if (digest.empty()) return oci::Digest();
  return oci::Digest::Parse(digest);
}

absl::StatusOr<std::string> RegistryClient::GetSmallBlob(const oci::Descriptor& blob,
                                                         const StopFn& stop) {
  http::Request request = NewRequest("/blobs/" + blob.digest.str());
  request.total_timeout = config_.small_request_timeout;
  request.max_body_bytes = oci::kMaxConfigBytes;
  const std::string subject = Subject() + ", config " + blob.digest.str();
  std::string body;
  request.on_head = [&](const http::ResponseHead& head) {
    body.clear();  // of an earlier try
    RETURN_IF_ERROR(CheckSmallHead(head, subject));
    const uint64_t length = head.ContentLength().value_or(blob.size_bytes);
    if (head.status != 200 || length == blob.size_bytes) return absl::OkStatus();
    return OtherContent(subject, length, blob.size_bytes);
  };
  request.sink = [&](std::string_view piece) {
    body.append(piece);
    return body.size() <= blob.size_bytes ? absl::OkStatus()
                                          : OtherContent(subject, body.size(), blob.size_bytes);
  };
  RETURN_IF_ERROR(SendWithRetries(request, subject, stop).status());
  if (body.size() != blob.size_bytes || oci::Digest::Of(body) != blob.digest)
    return OtherContent(subject, body.size(), blob.size_bytes);
  return body;
}

absl::Status RegistryClient::CheckBlobHead(BlobAttempt& attempt, const http::ResponseHead& head) {
  const uint64_t offset = attempt.writer.offset();
  const auto length = head.ContentLength();
  const std::string encoding = head.Header("content-encoding");
  if (!encoding.empty() && encoding != "identity") {
    return ReasonError(absl::StatusCode::kDataLoss, "LAYER_CORRUPT",
                       attempt.subject +
                           ": the registry sends it in another encoding than it is "
                           "stored in: check its configuration and proxies between");
  }
  if (head.status == 206) {
    const auto range = ParseContentRange(head.Header("content-range"));
    const bool right = range && range->first == offset && range->last + 1 == attempt.size_bytes &&
                       range->total.value_or(attempt.size_bytes) == attempt.size_bytes &&
                       length.value_or(attempt.size_bytes - offset) == attempt.size_bytes - offset;
    if (right && !attempt.no_range) return absl::OkStatus();
    attempt.no_range = true;
    RETURN_IF_ERROR(attempt.writer.Restart());
    return ReasonError(absl::StatusCode::kUnavailable, "LAYER_CORRUPT",
                       attempt.subject +
                           ": the registry answered with another range than asked "
                           "for: check the registry and proxies between");
  }
  if (head.status != 200) return absl::OkStatus();            // an error: its body tells more
  if (offset > 0) RETURN_IF_ERROR(attempt.writer.Restart());  // it ignores ranges: from the start
  if (!length || *length == attempt.size_bytes) return absl::OkStatus();
  const std::string sizes = std::to_string(*length) + " bytes where the manifest declares " +
                            std::to_string(attempt.size_bytes);
  if (*length < attempt.size_bytes) {
    return ReasonError(
        absl::StatusCode::kDataLoss, "LAYER_CORRUPT",
        attempt.subject + " is truncated: the registry has " + sizes + ": push the image again");
  }
  return ReasonError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                     attempt.subject + ": the registry has " + sizes + ": push the image again");
}

absl::Status RegistryClient::TryBlob(BlobAttempt& attempt) {
  http::Request request = NewRequest("/blobs/" + attempt.digest.str());
  if (const uint64_t offset = attempt.writer.offset(); offset > 0 && !attempt.no_range)
    request.headers.emplace_back("Range", "bytes=" + std::to_string(offset) + "-");
  request.max_body_bytes = attempt.size_bytes;
  request.on_head = [&](const http::ResponseHead& head) { return CheckBlobHead(attempt, head); };
  request.sink = [&](std::string_view piece) {
    RETURN_IF_ERROR(attempt.writer.Write(piece));
    attempt.on_bytes(attempt.writer.offset());
    return absl::OkStatus();
  };
  ASSIGN_OR_RETURN(const auto slot, limiter_->Acquire(endpoint_.host, owner_, attempt.stop));
  const auto response = Send(std::move(request), attempt.stop, &attempt.retry_after);
  if (!response.ok()) {
    if (response.status().code() == absl::StatusCode::kResourceExhausted &&
        ReasonOf(response.status()).empty()) {
      return ReasonError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                         attempt.subject + ": the registry sends more than the " +
                             std::to_string(attempt.size_bytes) +
                             " bytes that the manifest declares: push the image again");
    }
    return ErrorOfTransport(response.status(), attempt.subject);
  }
  if (response->status == 200 || response->status == 206) {
    if (attempt.writer.offset() == attempt.size_bytes) return absl::OkStatus();
    return ErrorOfTransport(
        absl::DataLossError("only " + std::to_string(attempt.writer.offset()) + " of " +
                            std::to_string(attempt.size_bytes) + " bytes came"),
        attempt.subject);
  }
  if (response->status == 416) {
    attempt.no_range = true;
    RETURN_IF_ERROR(attempt.writer.Restart());
    return ReasonError(absl::StatusCode::kUnavailable, "LAYER_CORRUPT",
                       attempt.subject +
                           ": the registry says that it ends before its declared "
                           "size: push the image again");
  }
  absl::Status error = ErrorOf(*response, attempt.subject);
  // A signed URL that the registry redirected to may have expired: asking again makes a new one.
  const auto last = http::ParseUrl(response->url);
  const bool elsewhere = last.ok() && !http::SameOrigin(*last, endpoint_.origin);
  if (elsewhere && (response->status == 403 || response->status == 401)) {
    error = ReasonError(absl::StatusCode::kUnavailable, "REGISTRY_AUTH_FAILED",
                        std::string(error.message()));
  }
  return error;
}

absl::Status RegistryClient::GetBlob(const oci::Digest& digest, uint64_t size_bytes,
                                     oci::BlobWriter& writer, const StopFn& stop,
                                     const std::function<void(uint64_t)>& on_bytes) {
  const StopFn ends = [&] { return writer.ShouldYield() || (stop && stop()); };
  BlobAttempt attempt{.digest = digest,
                      .size_bytes = size_bytes,
                      .writer = writer,
                      .stop = ends,
                      .on_bytes = on_bytes,
                      .subject = Subject() + ", layer " + digest.str(),
                      .no_range = false,
                      .retry_after = ""};
  int fruitless = 0;
  uint64_t farthest = writer.offset();  // what was there before is lost where ranges are ignored
  for (;;) {
    attempt.retry_after.clear();
    const absl::Status status = TryBlob(attempt);
    if (status.ok() || !IsWorthAnotherTry(status)) return status;
    const bool gained = writer.offset() >= farthest + kGainThatCounts;
    farthest = std::max(farthest, writer.offset());
    fruitless = gained ? 0 : fruitless + 1;
    if (fruitless >= static_cast<int>(config_.max_tries)) return status;
    RETURN_IF_ERROR(
        WaitUnlessStopped(DelayAfter(attempt.retry_after, std::max(0, fruitless - 1)), ends));
  }
}

}  // namespace bunker::agent
