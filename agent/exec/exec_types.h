// What a command in a guest is, and how it ended. Plain data.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bunker/guest/v1/guest.pb.h"

namespace bunker::agent {

struct TerminalSize {
  uint32_t columns = 80;
  uint32_t rows = 24;
};

struct ExecSpec {
  std::vector<std::string> argv;  // exactly one of argv and shell
  std::string shell;
  std::string cwd;                         // "": the guest's default
  std::map<std::string, std::string> env;  // over the guest's defaults
  std::string user;                        // "": the guest's default
  uint32_t timeout_ms = 0;                 // 0: none
  bool allow_root = false;       // false: uid 0, in any spelling, is refused inside the guest
  bool default_to_1000 = false;  // user is "" and the default is uid 0: run as uid 1000
  uint64_t max_output_bytes = 1 << 20;  // per stream; what is over it is drained and counted
  bool open_stdin = true;               // false: /dev/null
  std::optional<TerminalSize> terminal;  // set: it runs on one, all output is stdout
  bool tell_start = false;               // on_started once the program runs
  // True: output counts as taken when on_output returns. False: call ExecHandle::AckOutput, the
  // guest waits once 256 KiB are not acked.
  bool auto_ack = true;
};

struct ExecResult {
  int exit_code = 0;          // 128 + signal number where a signal ended it
  std::string signal;         // "SIGKILL"; "": it exited
  uint64_t stdout_bytes = 0;  // written by the command, forwarded or not
  uint64_t stderr_bytes = 0;
  bool timed_out = false;
  absl::Duration duration;
};

// Run on the channel's thread, one at a time, without any lock held; they must not block, may call
// the ExecHandle, and may run until the last one, also before StartExec has returned. Exactly one
// of on_exit, on_answer, on_log_end and on_error is last. Unset ones are skipped.
struct ExecCallbacks {
  std::function<void(bool is_stderr, std::string_view data)> on_output;  // ≤ 32 KiB
  std::function<void(const ExecResult&)> on_exit;
  // The command did not run, or what became of it is unknown.
  std::function<void(const absl::Status&)> on_error;
  std::function<void()> on_stdin_room;  // after TryWriteStdin took less than it was given
  std::function<void(uint32_t pid)> on_started;
  std::function<void(uint64_t bytes)> on_gap;  // of ReadProcess: output that is lost
  // Of CallProcess, in place of on_exit.
  std::function<void(const guest::v1::ProcessAnswer&)> on_answer;
  // Of ReadMain without `follow`, in place of on_exit.
  std::function<void(uint64_t next_offset)> on_log_end;
};

struct GuestFacts {
  std::string kernel_release;  // as the guest says: escaped, bounded
  absl::Duration uptime;       // of the guest when it began to serve
  int sessions = 0;            // handshakes so far
};

}  // namespace bunker::agent
