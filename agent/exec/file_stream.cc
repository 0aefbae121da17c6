#include "agent/exec/file_stream.h"

#include <algorithm>
#include <string>
#include <utility>

#include "agent/exec/exec_stream.h"
#include "common/base/reason.h"
#include "common/base/utf8.h"

namespace bunker::agent {
namespace {

constexpr size_t kMaxHeadBytes = 16 * 1024;

absl::Status Violation(std::string_view what) {
  return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                     "the guest broke the channel's rules: " + std::string(what));
}

// Names are the tenant's own bytes: escapes for terminals go, letters of any script stay.
std::string WithoutControls(std::string_view text) {
  constexpr size_t kMaxBytes = 600;
  std::string clean(text.substr(0, kMaxBytes));
  for (char& c : clean) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = '?';
  }
  return ToValidUtf8(std::move(clean));
}

}  // namespace

absl::Status FileStream::OnHead(std::string_view payload, guest::v1::FileHead* head) {
  if (std::exchange(head_seen_, true)) return Violation("a second head of a file");
  const bool readable = payload.size() <= kMaxHeadBytes &&
                        head->ParseFromArray(payload.data(), static_cast<int>(payload.size()));
  return readable ? absl::OkStatus() : Violation("an unreadable head of a file");
}

absl::Status FileStream::OnData(std::string_view data) {
  if (!head_seen_) return Violation("a file's data before its head");
  if (data.empty() || data.size() > wire::kMaxDataBytes) return Violation("data frame's size");
  return receive_credit_.Receive(data.size()) ? absl::OkStatus() : Violation("data without credit");
}

absl::Status FileStream::OnCredit(uint32_t bytes) {
  return send_credit_.Grant(bytes) ? absl::OkStatus() : Violation("credit for nothing");
}

uint32_t FileStream::Ack(size_t bytes) {
  return receive_credit_.Consume(std::min<size_t>(bytes, receive_credit_.held()));
}

absl::Status FileEndToStatus(const guest::v1::FileEnd& end) {
  using guest::v1::FileEnd;
  const std::string said = WithoutControls(end.message());
  switch (end.kind()) {
    case FileEnd::NOT_FOUND:
      return ReasonError(absl::StatusCode::kNotFound, "PATH_NOT_FOUND", said);
    case FileEnd::DENIED:
      return ReasonError(absl::StatusCode::kPermissionDenied, "AUTHZ_PERMISSION_DENIED",
                         said + "; inside the bunker the user may not do it: use a path of its "
                                "own, or a key with scaibunker:root");
    case FileEnd::EXISTS:
      return ReasonError(absl::StatusCode::kFailedPrecondition, "RESOURCE_IN_USE", said);
    case FileEnd::NOT_EMPTY:
      return ReasonError(absl::StatusCode::kFailedPrecondition, "RESOURCE_IN_USE",
                         said + "; a folder with content goes with recursive=true");
    case FileEnd::WRONG_TYPE:
    case FileEnd::INVALID:
      return ReasonError(absl::StatusCode::kInvalidArgument, "VALIDATION_ERROR", said);
    case FileEnd::DISK_FULL:
      return ReasonError(absl::StatusCode::kResourceExhausted, "DISK_FULL",
                         said + "; remove something, or create the bunker with a larger disk_mb");
    case FileEnd::ROOT_DENIED:
      return ReasonError(absl::StatusCode::kPermissionDenied, "AUTHZ_PERMISSION_DENIED",
                         said + "; files as root need the key scaibunker:root");
    case FileEnd::BUSY:
      return ReasonError(absl::StatusCode::kResourceExhausted, "RATE_LIMITED", said);
    case FileEnd::NOT_BOOTED:
      return ReasonError(absl::StatusCode::kFailedPrecondition, "BUNKER_NOT_RUNNING",
                         "the guest did not come up: " + said);
    default:
      return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                         "the guest could not do it: " + said);
  }
}

}  // namespace bunker::agent
