#include "common/base/reason.h"

#include <cerrno>
#include <system_error>

#include "absl/strings/cord.h"

namespace bunker {
namespace {
constexpr char kReasonUrl[] = "bunker/reason";

absl::string_view AsAbsl(std::string_view text) { return {text.data(), text.size()}; }

absl::StatusCode CodeOf(int error_number) {
  switch (error_number) {
    case ENOENT: case ENOTDIR: return absl::StatusCode::kNotFound;
    case EEXIST: return absl::StatusCode::kAlreadyExists;
    case EACCES: case EPERM: return absl::StatusCode::kPermissionDenied;
    case ENOSPC: case EDQUOT: case EMFILE: case ENFILE: case ENOMEM:
      return absl::StatusCode::kResourceExhausted;
    case EINVAL: case ENAMETOOLONG: return absl::StatusCode::kInvalidArgument;
    case ETIMEDOUT: return absl::StatusCode::kDeadlineExceeded;
    case ECONNREFUSED: case ECONNRESET: case EPIPE: case EAGAIN:
      return absl::StatusCode::kUnavailable;
    default: return absl::StatusCode::kInternal;
  }
}
}  // namespace

absl::Status WithReason(absl::Status status, std::string_view reason) {
  status.SetPayload(kReasonUrl, absl::Cord(AsAbsl(reason)));
  return status;
}

absl::Status ReasonError(absl::StatusCode code, std::string_view reason, std::string_view message) {
  return WithReason(absl::Status(code, AsAbsl(message)), reason);
}

std::string ReasonOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kReasonUrl);
  return payload ? std::string(*payload) : std::string();
}

absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  std::string message(context);
  message.append(": ").append(status.message().data(), status.message().size());
  absl::Status annotated(status.code(), message);
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    annotated.SetPayload(url, payload);
  });
  return annotated;
}

absl::Status ErrnoError(int error_number, std::string_view what) {
  std::string message(what);
  message.append(": ").append(std::generic_category().message(error_number));
  absl::Status status(CodeOf(error_number), message);
  if (error_number == ENOSPC || error_number == EDQUOT) return WithReason(status, "DISK_FULL");
  return status;
}

}  // namespace bunker
