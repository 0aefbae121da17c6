#include "agent/exec/exec_stream.h"

#include <algorithm>
#include <utility>

#include "common/base/reason.h"

namespace bunker::agent {
namespace {

constexpr std::chrono::seconds kEndGrace{15};
constexpr size_t kMaxTextBytes = 300;

absl::Status Violation(std::string_view what) {
  return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                     "the guest broke the channel's rules: " + std::string(what));
}

bool IsSignalName(std::string_view name) {
  return name.size() > 3 && name.size() <= 12 && name.substr(0, 3) == "SIG" &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); });
}

}  // namespace

ExecStream::ExecStream(const ExecSpec& spec, SteadyTime now)
    : max_output_bytes_(spec.max_output_bytes),
      has_timeout_(spec.timeout_ms != 0),
      started_(now),
      stdin_closed_(!spec.open_stdin) {
  if (has_timeout_) deadline_ = now + std::chrono::milliseconds(spec.timeout_ms) + kEndGrace;
}

absl::Status ExecStream::OnOutput(bool is_stderr, std::string_view data) {
  if (data.empty() || data.size() > wire::kMaxDataBytes) return Violation("output frame's size");
  if (!output_credit_.Receive(data.size())) return Violation("output without credit");
  uint64_t& forwarded = forwarded_[is_stderr ? 1 : 0];
  forwarded += data.size();
  if (forwarded > max_output_bytes_) return Violation("more output than asked for");
  return absl::OkStatus();
}

absl::Status ExecStream::OnCredit(uint32_t bytes) {
  return stdin_credit_.Grant(bytes) ? absl::OkStatus() : Violation("credit for nothing");
}

absl::Status ExecStream::OnStarted() {
  return std::exchange(started_told_, true) ? Violation("a second start") : absl::OkStatus();
}

// The guest's offsets are its own, but a reader counts with them.
absl::Status ExecStream::OnGap(uint64_t bytes) {
  constexpr uint64_t kMostBytes = uint64_t{1} << 56;
  if (!reads_process_ || bytes == 0) return Violation("a gap in nothing");
  if (bytes > kMostBytes || gap_bytes_ > kMostBytes - bytes) return Violation("a gap of that size");
  gap_bytes_ += bytes;
  return absl::OkStatus();
}

ExecResult ExecStream::OnExit(const guest::v1::ExecExit& exit, SteadyTime now) const {
  ExecResult result;
  result.exit_code = std::clamp(exit.exit_code(), 0, 255);
  if (!exit.signal().empty()) {
    result.signal = IsSignalName(exit.signal()) ? exit.signal() : "SIGUNKNOWN";
  }
  result.stdout_bytes = std::max<uint64_t>(exit.stdout_bytes(), forwarded_[0]);
  result.stderr_bytes = std::max<uint64_t>(exit.stderr_bytes(), forwarded_[1]);
  result.timed_out = exit.timed_out() && (has_timeout_ || reads_process_);
  const auto elapsed = std::chrono::duration_cast<std::chrono::microseconds>(now - started_);
  const auto longest = static_cast<uint64_t>(
      reads_process_ ? INT64_MAX : std::max<int64_t>(elapsed.count(), 0));
  result.duration =
      absl::Microseconds(static_cast<int64_t>(std::min<uint64_t>(exit.duration_us(), longest)));
  return result;
}

uint32_t ExecStream::AckOutput(size_t bytes) {
  return output_credit_.Consume(std::min<size_t>(bytes, output_credit_.held()));
}

void ExecStream::ExpectEnd(SteadyTime now) {
  const SteadyTime latest = now + kEndGrace;
  deadline_ = deadline_ ? std::min(*deadline_, latest) : latest;
}

absl::Status ExecErrorToStatus(const guest::v1::ExecError& error) {
  using guest::v1::ExecError;
  const std::string said = CleanGuestText(error.message());
  switch (error.kind()) {
    case ExecError::INVALID:
      return ReasonError(absl::StatusCode::kInvalidArgument, "VALIDATION_ERROR", said);
    case ExecError::ROOT_DENIED:
      return ReasonError(absl::StatusCode::kPermissionDenied, "AUTHZ_PERMISSION_DENIED",
                         said + "; running as root needs the key scaibunker:root");
    case ExecError::CWD_NOT_FOUND:
      return ReasonError(absl::StatusCode::kNotFound, "PATH_NOT_FOUND",
                         said + "; name a folder that exists in the bunker");
    case ExecError::BUSY:
      return ReasonError(absl::StatusCode::kResourceExhausted, "RATE_LIMITED", said);
    case ExecError::NO_PROCESS:
      return ReasonError(absl::StatusCode::kNotFound, "NOT_FOUND", said);
    case ExecError::NOT_BOOTED:
      return ReasonError(absl::StatusCode::kFailedPrecondition, "BUNKER_NOT_RUNNING",
                         "the guest did not come up: " + said);
    default:
      return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                         "the guest could not start the command: " + said);
  }
}

std::string CleanGuestText(std::string_view text) {
  std::string clean(text.substr(0, kMaxTextBytes));
  for (char& c : clean) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  return clean;
}

guest::v1::ExecStart ToProto(const ExecSpec& spec) {
  guest::v1::ExecStart start;
  for (const std::string& word : spec.argv) start.add_argv(word);
  start.set_shell(spec.shell);
  start.set_cwd(spec.cwd);
  for (const auto& [name, value] : spec.env) (*start.mutable_env())[name] = value;
  start.set_user(spec.user);
  start.set_timeout_ms(spec.timeout_ms);
  start.set_allow_root(spec.allow_root);
  start.set_default_to_1000(spec.default_to_1000);
  start.set_max_output_bytes(spec.max_output_bytes);
  start.set_open_stdin(spec.open_stdin);
  start.set_tell_start(spec.tell_start);
  if (spec.terminal) {
    start.mutable_terminal()->set_columns(spec.terminal->columns);
    start.mutable_terminal()->set_rows(spec.terminal->rows);
  }
  return start;
}

}  // namespace bunker::agent
