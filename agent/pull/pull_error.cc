#include "agent/pull/pull_error.h"

#include <algorithm>
#include <utility>

#include "agent/pull/image_source.h"
#include "common/base/reason.h"
#include "common/oci/json_guard.h"
#include "nlohmann/json.hpp"

namespace bunker::agent {
namespace {
constexpr size_t kMaxShown = 200;

std::string Printable(std::string_view text) {
  std::string shown;
  for (const char c : text.substr(0, kMaxShown)) {
    const auto byte = static_cast<unsigned char>(c);
    shown.push_back(byte >= ' ' && byte < 0x7f ? c : '?');
  }
  return shown;
}

std::string Said(const http::Response& response, const ScrubFn& scrub) {
  const std::string message = RegistryMessage(response.body, scrub);
  std::string text = "the registry answered " + std::to_string(response.status);
  return message.empty() ? text : text + " (" + message + ")";
}
}  // namespace

std::string RegistryMessage(std::string_view body, const ScrubFn& scrub) {
  // Before it is cut: half a secret would not be found.
  const auto shown = [&](std::string text) {
    return Printable(scrub ? scrub(std::move(text)) : text);
  };
  const auto json = oci::ParseObject(body, "error");
  if (!json.ok()) return "";
  if (const auto* errors = oci::MemberOf(*json, "errors");
      errors != nullptr && errors->is_array() && !errors->empty() && errors->front().is_object()) {
    const std::string code = oci::StringOf(errors->front(), "code");
    const std::string message = oci::StringOf(errors->front(), "message");
    return shown(code.empty() ? message : code + ": " + message);
  }
  for (const char* key : {"details", "message", "error_description", "error"}) {
    if (const std::string text = oci::StringOf(*json, key); !text.empty()) return shown(text);
  }
  return "";
}

absl::Status ErrorOfAnswer(const http::Response& response, std::string_view subject,
                           const ScrubFn& scrub) {
  const std::string what = std::string(subject) + ": " + Said(response, scrub);
  switch (response.status) {
    case 401:
    case 403:
      return ReasonError(absl::StatusCode::kPermissionDenied, "REGISTRY_AUTH_FAILED",
                         what +
                             "; check that the reference is right and that this registry's "
                             "credentials allow to pull it");
    case 404:
      return ReasonError(absl::StatusCode::kNotFound, "IMAGE_NOT_FOUND",
                         what + "; check the repository, tag and digest, or push the image");
    case 407:
      return ReasonError(absl::StatusCode::kFailedPrecondition, "REGISTRY_UNREACHABLE",
                         what +
                             "; the proxy wants credentials: put them into its URL in the "
                             "agent's environment");
    case 429:
      return ReasonError(absl::StatusCode::kUnavailable, "REGISTRY_RATE_LIMITED",
                         what +
                             "; wait, or name a registry credential with a higher limit as the "
                             "image's pull_secret");
    default:
      break;
  }
  if (response.status == 408 || response.status / 100 == 5) {
    return ReasonError(absl::StatusCode::kUnavailable, "REGISTRY_UNREACHABLE",
                       what + "; it is retried later, check the registry's state");
  }
  return ReasonError(absl::StatusCode::kFailedPrecondition, "REGISTRY_UNREACHABLE",
                     what + "; check that the host is a container registry (v2 API)");
}

absl::Status ErrorOfTransport(const absl::Status& status, std::string_view subject) {
  if (!ReasonOf(status).empty()) return status;
  const std::string what = std::string(subject) + ": " + std::string(status.message());
  switch (status.code()) {
    case absl::StatusCode::kDataLoss:
      return ReasonError(absl::StatusCode::kUnavailable, "LAYER_CORRUPT",
                         what +
                             "; the registry ended the transfer before its end: check its "
                             "storage and what lies between, or push the image again");
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return ReasonError(absl::StatusCode::kUnavailable, "REGISTRY_UNREACHABLE",
                         what + "; check that the registry runs and that this worker reaches it");
    case absl::StatusCode::kPermissionDenied:
      return ReasonError(absl::StatusCode::kPermissionDenied, "REGISTRY_UNREACHABLE",
                         what + " (registries in the agent's configuration)");
    case absl::StatusCode::kFailedPrecondition:
      return ReasonError(absl::StatusCode::kFailedPrecondition, "REGISTRY_UNREACHABLE",
                         what + "; give the registry's CA as ca_file in the agent's configuration");
    case absl::StatusCode::kResourceExhausted:
      return ReasonError(absl::StatusCode::kFailedPrecondition, "LAYER_UNSUPPORTED",
                         what + "; no valid image needs that much");
    default:
      return ReasonError(status.code(), "REGISTRY_UNREACHABLE", what);
  }
}

bool IsWorthAnotherTry(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable;
}

bool IsRetryablePullError(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return status.code() == absl::StatusCode::kUnavailable || reason == "DISK_FULL";
}

}  // namespace bunker::agent
