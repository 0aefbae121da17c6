#include "agent/reconcile/process_codec.h"

#include <algorithm>

#include "agent/exec/exec_stream.h"
#include "common/base/utf8.h"

namespace bunker::agent {
namespace {

constexpr int kMaxRows = 64;
constexpr int kMaxWords = 512;
constexpr size_t kMaxShownBytes = 2048;
constexpr uint64_t kMaxMicros = uint64_t{1} << 60;

absl::Duration Micros(uint64_t us) {
  return absl::Microseconds(static_cast<int64_t>(std::min(us, kMaxMicros)));
}

std::string Text(const std::string& said) {
  return ToValidUtf8(said.substr(0, kMaxShownBytes));
}

guest::v1::ExecStart ToGuest(const link::v1::ExecStart& start) {
  guest::v1::ExecStart told;
  *told.mutable_argv() = start.argv();
  told.set_shell(start.shell());
  told.set_cwd(start.cwd());
  *told.mutable_env() = start.env();
  told.set_user(start.user());
  told.set_timeout_ms(start.timeout_ms());
  told.set_allow_root(start.allow_root());
  told.set_default_to_1000(start.default_to_1000());
  told.set_open_stdin(true);
  return told;
}

link::v1::ProcessRow ToLink(const guest::v1::ProcessRow& row, absl::Time now) {
  link::v1::ProcessRow told;
  told.set_pid(row.pid());
  for (int i = 0; i < std::min(row.argv_size(), kMaxWords); ++i) told.add_argv(Text(row.argv(i)));
  told.set_shell(Text(row.shell()));
  told.set_uid(row.uid());
  told.set_started_unix_ms(std::max<int64_t>(absl::ToUnixMillis(now - Micros(row.age_us())), 0));
  told.set_ended(row.ended());
  if (row.ended()) {
    told.set_exit_code(std::clamp(row.exit_code(), 0, 255));
    told.set_signal(CleanGuestText(row.signal().substr(0, 12)));
    told.set_timed_out(row.timed_out());
    told.set_duration_ms(absl::ToDoubleMilliseconds(Micros(row.duration_us())));
  }
  told.set_stdout_bytes(row.stdout_bytes());
  told.set_stderr_bytes(row.stderr_bytes());
  told.set_output_begin(row.output_begin());
  told.set_stdin_open(row.stdin_open());
  return told;
}

}  // namespace

guest::v1::ProcessCall ToGuest(const link::v1::ProcessCall& call) {
  guest::v1::ProcessCall told;
  told.set_allow_root(call.allow_root());
  switch (call.call_case()) {
    case link::v1::ProcessCall::kStart:
      *told.mutable_start() = ToGuest(call.start());
      break;
    case link::v1::ProcessCall::kList:
      told.set_list(true);
      break;
    case link::v1::ProcessCall::kGet:
      told.set_get(call.get());
      break;
    case link::v1::ProcessCall::kSignal:
      told.mutable_signal()->set_pid(call.signal().pid());
      told.mutable_signal()->set_signal(call.signal().signal());
      break;
    case link::v1::ProcessCall::kCloseStdin:
      told.set_close_stdin(call.close_stdin());
      break;
    case link::v1::ProcessCall::kWrite:
    case link::v1::ProcessCall::CALL_NOT_SET:
      break;  // the guest refuses what asks for nothing
  }
  return told;
}

link::v1::ProcessAnswer ToLink(const guest::v1::ProcessAnswer& answer, absl::Time now) {
  link::v1::ProcessAnswer told;
  for (int i = 0; i < std::min(answer.rows_size(), kMaxRows); ++i) {
    *told.add_rows() = ToLink(answer.rows(i), now);
  }
  return told;
}

}  // namespace bunker::agent
