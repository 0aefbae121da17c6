#include "controller/api/errors.h"

#include <fmt/format.h>

#include "absl/strings/cord.h"
#include "common/base/converters.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "google/rpc/error_details.pb.h"

namespace bunker::controller {
namespace {

using Code = absl::StatusCode;

constexpr char kViolationsUrl[] = "type.googleapis.com/google.rpc.BadRequest";
constexpr char kPlacementUrl[] = "type.googleapis.com/bunker.v1.PlacementFailure";
constexpr char kRetryUrl[] = "type.googleapis.com/google.rpc.RetryInfo";

// The reason of an error that carries none of the table.
const char* ReasonOfCode(Code code) {
  switch (code) {
    case Code::kInvalidArgument: case Code::kOutOfRange: return "VALIDATION_ERROR";
    case Code::kNotFound: return "NOT_FOUND";
    case Code::kAlreadyExists: return "SLUG_CONFLICT";
    case Code::kPermissionDenied: return "AUTHZ_PERMISSION_DENIED";
    case Code::kUnauthenticated: return "AUTH_TOKEN_INVALID";
    // Cancelled: the client went away, so nobody reads this.
    case Code::kUnavailable: case Code::kCancelled: return "UNAVAILABLE";
    case Code::kDeadlineExceeded: return "UPSTREAM_TIMEOUT";
    case Code::kFailedPrecondition: case Code::kAborted: return "RESOURCE_IN_USE";
    case Code::kResourceExhausted: return "UNAVAILABLE";
    default: return "INTERNAL";
  }
}

// What refuses by state, not by form, says "field: why".
std::optional<FieldViolation> FieldIn(const std::string& message) {
  const size_t colon = message.find(": ");
  const std::string field = message.substr(0, colon);
  if (colon == std::string::npos || field.empty() ||
      field.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_.[]") != std::string::npos) {
    return std::nullopt;
  }
  return FieldViolation{field, message.substr(colon + 2)};
}

absl::Cord ToCord(const google::protobuf::Message& message) {
  return absl::Cord(message.SerializeAsString());
}

}  // namespace

const std::vector<ErrorRow>& ErrorTable() {
  static const auto* const table = new std::vector<ErrorRow>{
      {"NO_SUITABLE_WORKER", Code::kUnavailable, 503},
      {"WORKER_UNAVAILABLE", Code::kUnavailable, 503},
      {"BUNKER_QUOTA_EXCEEDED", Code::kResourceExhausted, 429},
      {"NETWORK_PROFILE_DENIED", Code::kPermissionDenied, 403},
      {"LIFECYCLE_MODE_DENIED", Code::kPermissionDenied, 403},
      {"INTERFACES_NOT_ALLOWED", Code::kInvalidArgument, 422},
      {"TRANSIT_MISSING_INTERFACES", Code::kInvalidArgument, 422},
      {"IMAGE_INACTIVE", Code::kFailedPrecondition, 409},
      {"IMAGE_SCAN_FAILED", Code::kFailedPrecondition, 409},
      {"BUNKER_NOT_RUNNING", Code::kFailedPrecondition, 409},
      {"STALE_INCARNATION", Code::kAborted, 409},
      {"RESOURCE_IN_USE", Code::kFailedPrecondition, 409},
      {"IDEMPOTENCY_CONFLICT", Code::kAlreadyExists, 409},
      {"AUTH_TOKEN_MISSING", Code::kUnauthenticated, 401},
      {"AUTH_TOKEN_INVALID", Code::kUnauthenticated, 401},
      {"SESSION_EXPIRED", Code::kUnauthenticated, 401},
      {"AUTHZ_PERMISSION_DENIED", Code::kPermissionDenied, 403},
      {"NOT_FOUND", Code::kNotFound, 404},
      {"PATH_NOT_FOUND", Code::kNotFound, 404},
      {"METHOD_NOT_ALLOWED", Code::kUnimplemented, 405},
      {"UNSUPPORTED_MEDIA_TYPE", Code::kInvalidArgument, 415},
      {"VALIDATION_ERROR", Code::kInvalidArgument, 422},
      {"SLUG_CONFLICT", Code::kAlreadyExists, 409},
      {"RATE_LIMITED", Code::kResourceExhausted, 429},
      {"PAYLOAD_TOO_LARGE", Code::kOutOfRange, 413},
      {"DISK_FULL", Code::kResourceExhausted, 507},
      {"UPSTREAM_TIMEOUT", Code::kDeadlineExceeded, 504},
      {"UNAVAILABLE", Code::kUnavailable, 503},
      {"INTERNAL", Code::kInternal, 500},
  };
  return *table;
}

const ErrorRow* FindError(std::string_view reason) {
  for (const ErrorRow& row : ErrorTable()) {
    if (reason == row.reason) return &row;
  }
  return nullptr;
}

absl::Status ApiError(std::string_view reason, std::string_view message) {
  const ErrorRow* row = FindError(reason);
  BUNKER_CHECK(row != nullptr);
  return ReasonError(row->code, reason, message);
}

absl::Status ValidationError(const std::vector<FieldViolation>& violations) {
  BUNKER_CHECK(!violations.empty());
  google::rpc::BadRequest details;
  for (const FieldViolation& violation : violations) {
    auto* row = details.add_field_violations();
    row->set_field(violation.field);
    row->set_description(violation.message);
  }
  const FieldViolation& first = violations.front();
  std::string message =
      first.field.empty() ? first.message : fmt::format("{}: {}", first.field, first.message);
  if (violations.size() > 1)
    message += fmt::format(" (and {} more, see details)", violations.size() - 1);
  absl::Status status = ApiError("VALIDATION_ERROR", message);
  status.SetPayload(kViolationsUrl, ToCord(details));
  return status;
}

absl::Status ValidationError(std::string_view field, std::string_view message) {
  return ValidationError({{std::string(field), std::string(message)}});
}

absl::Status WithRetryAfter(absl::Status status, absl::Duration retry_after) {
  google::rpc::RetryInfo info;
  const int64_t ms = absl::ToInt64Milliseconds(retry_after);
  info.mutable_retry_delay()->set_seconds(ms / 1000);
  info.mutable_retry_delay()->set_nanos(static_cast<int32_t>(ms % 1000 * 1'000'000));
  status.SetPayload(kRetryUrl, ToCord(info));
  return status;
}

absl::Status WithPlacement(absl::Status status, const v1::PlacementFailure& failure) {
  status.SetPayload(kPlacementUrl, ToCord(failure));
  return status;
}

ErrorView ViewOf(const absl::Status& status) {
  BUNKER_CHECK(!status.ok());
  ErrorView view;
  view.row = FindError(ReasonOf(status));
  if (view.row == nullptr) view.row = FindError(ReasonOfCode(status.code()));
  view.message = std::string(ToStd(status.message()));
  if (view.row->http_status == 500) {
    view.message = "the controller failed; the operator finds the cause in its log under this "
                   "request id";
  }
  if (const auto payload = status.GetPayload(kViolationsUrl)) {
    google::rpc::BadRequest details;
    if (details.ParseFromString(std::string(*payload))) {
      for (const auto& row : details.field_violations())
        view.violations.push_back({row.field(), row.description()});
    }
  }
  if (view.violations.empty() && view.row->http_status == 422) {
    if (auto violation = FieldIn(view.message)) view.violations.push_back(*std::move(violation));
  }
  if (const auto payload = status.GetPayload(kPlacementUrl)) {
    v1::PlacementFailure failure;
    if (failure.ParseFromString(std::string(*payload))) view.placement = std::move(failure);
  }
  if (const auto payload = status.GetPayload(kRetryUrl)) {
    google::rpc::RetryInfo info;
    if (info.ParseFromString(std::string(*payload))) {
      view.retry_after = absl::Seconds(info.retry_delay().seconds()) +
                         absl::Nanoseconds(info.retry_delay().nanos());
    }
  }
  return view;
}

}  // namespace bunker::controller
