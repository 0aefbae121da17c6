// One running command: its pipes or terminal, its counters, its time-out.
//
// Output up to max_output_bytes per stream goes to the peer, as far as that has room; what is over
// it is read, dropped and counted. It ends when the command has ended and its pipes are read empty;
// what it left in the background lives on and is no reason to wait. A time-out or kill takes the
// whole cgroup, and the end is told only once nothing of it is alive.
#pragma once

#include <cstdint>
#include <deque>
#include <string>

#include "agent/guest/cgroup.h"
#include "agent/guest/exec_peer.h"
#include "agent/guest/poller.h"
#include "agent/guest/spawn.h"
#include "common/wire/session.h"

namespace bunker::guest {

// Monotonic microseconds.
uint64_t NowMicros();

class ExecSession {
 public:
  enum class Channel : uint64_t { kStdin = 0, kStdout = 1, kStderr = 2, kStatus = 3 };

  struct Limits {
    uint64_t max_output_bytes = 0;
    uint32_t timeout_ms = 0;
  };

  // `token_base` + Channel are the tokens under which the pipes are in `poller`. `scratch` holds
  // wire::kMaxDataBytes; the pointers outlive this.
  ExecSession(Child child, Cgroup cgroup, Limits limits, Poller* poller, ExecPeer* peer,
              char* scratch, uint64_t token_base);

  // -1 once it was reaped: the number may be somebody else's by then.
  pid_t pid() const { return reaped_ ? -1 : child_pid_; }

  // From the loop.
  void OnReady(Channel channel);
  void OnReaped(int wait_status);  // waitpid(2)'s
  void OnTime(uint64_t now_us);
  // The peer may have room again.
  void OnRoom();
  // When OnTime wants to be called; 0: never.
  uint64_t NextWakeMicros() const;

  // More for its stdin; the peer hears when it is taken.
  void Feed(std::string_view data);
  // Forgets what was not taken yet, and says how much that was.
  size_t DropStdin();
  // After what was fed.
  void CloseStdin();
  bool stdin_open() const { return stdin_.open() && !stdin_close_asked_; }
  // 0 or 9: the whole tree; else the command alone.
  void Kill(uint32_t signal);
  // Ends what a command that has ended left in the background.
  void KillLeftovers();
  // Of a command that runs on a terminal.
  void Resize(const v1::Terminal& size);

  uint64_t started_us() const { return started_us_; }
  uint64_t stdout_bytes() const { return out_.total; }
  uint64_t stderr_bytes() const { return err_.total; }

  // The peer knows the end: the owner may take it down.
  bool finished() const { return finished_; }

  // What outlives it: the cgroup, and pipes that something in the background still holds.
  Cgroup TakeCgroup() { return std::move(cgroup_); }
  Fd TakeStdout() { return out_.pipe.Release(); }
  Fd TakeStderr() { return err_.pipe.Release(); }

 private:
  struct Output {
    Watched pipe;
    bool is_stderr = false;
    uint64_t total = 0;
    uint64_t forwarded = 0;
    bool done = false;  // end of file, or read empty after the command's end
  };

  void KillTree();
  void ReadOutput(Output* output);
  bool MayRead(const Output& output) const;
  void ReadStatus();
  void WriteStdin();
  void EndStdin();
  void UpdateInterest();
  void FinishIfDone();
  void SendEnd();

  const pid_t child_pid_;
  Cgroup cgroup_;
  const Limits limits_;
  ExecPeer* const peer_;
  char* const scratch_;
  Watched status_;  // until it is known whether the program runs
  CommandError failure_;
  Watched stdin_;
  std::deque<std::string> stdin_queue_;
  size_t stdin_front_written_ = 0;
  bool stdin_close_asked_ = false;
  Output out_, err_;
  const uint64_t started_us_;
  uint64_t ended_us_ = 0;
  uint64_t kill_deadline_us_ = 0;  // not 0: the tree is being killed
  bool tree_dead_ = false;         // nothing of a killed tree is alive
  bool timed_out_ = false;
  bool reaped_ = false;
  int wait_status_ = 0;
  bool drop_output_ = false;  // room is not waited for any more
  bool finished_ = false;
};

// "SIGKILL" for 9; "SIG34" and the like where there is no name.
std::string SignalName(int signal);

}  // namespace bunker::guest
