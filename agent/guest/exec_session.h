// One running command: its pipes, its counters, its time-out. Driven by ExecServer's loop.
//
// Output up to max_output_bytes per stream is forwarded under the host's credit; the rest is read,
// dropped and counted. It ends when the command has ended and its pipes are read empty; what it
// left in the background lives on and is no reason to wait. A time-out or kill takes the whole
// cgroup, and the end is told only once nothing of it is alive.
#pragma once

#include <cstdint>
#include <deque>
#include <string>

#include "agent/guest/cgroup.h"
#include "agent/guest/outbox.h"
#include "agent/guest/poller.h"
#include "agent/guest/spawn.h"
#include "common/wire/session.h"

namespace bunker::guest {

// Monotonic microseconds.
uint64_t NowMicros();

class ExecSession {
 public:
  enum class Channel : uint64_t { kStdin = 0, kStdout = 1, kStderr = 2 };

  struct Limits {
    uint64_t max_output_bytes = 0;
    uint32_t timeout_ms = 0;
  };

  // `token_base` + Channel are the tokens under which the pipes are in `poller`. `outbox` and
  // `poller` outlive this.
  ExecSession(uint32_t stream, Child child, Cgroup cgroup, Limits limits, Poller* poller,
              Outbox* outbox, uint64_t token_base);

  uint32_t stream() const { return stream_; }
  // -1 once it was reaped: the number may be somebody else's by then.
  pid_t pid() const { return reaped_ ? -1 : child_.pid; }

  // From the loop.
  void OnReady(Channel channel);
  void OnReaped(int wait_status);  // waitpid(2)'s
  void OnTime(uint64_t now_us);
  void OnOutboxRoom() { UpdateInterest(); }
  // When OnTime wants to be called; 0: never.
  uint64_t NextWakeMicros() const;

  // From the host. False where the host broke the credit rules.
  bool OnStdin(std::string_view data);
  void OnStdinClose();
  bool OnCredit(uint32_t bytes);
  void Kill(uint32_t signal);

  // All is told (by an ExecExit or ExecError frame that this sent): the owner may take it down.
  bool finished() const { return finished_; }

  // What outlives it: the cgroup, and pipes that something in the background still holds.
  Cgroup TakeCgroup() { return std::move(cgroup_); }
  Fd TakeStdout() { return out_.pipe.Release(); }
  Fd TakeStderr() { return err_.pipe.Release(); }

 private:
  struct Output {
    Watched pipe;
    wire::FrameType type = wire::FrameType::kStdout;
    uint64_t total = 0;
    uint64_t forwarded = 0;
    bool done = false;  // end of file, or read empty after the command's end
  };

  void KillTree();
  void ReadOutput(Output* output);
  bool MayRead(const Output& output) const;
  void WriteStdin();
  void CloseStdin();
  void UpdateInterest();
  void FinishIfDone();
  void SendEnd();

  const uint32_t stream_;
  Child child_;
  Cgroup cgroup_;
  const Limits limits_;
  Outbox* const outbox_;
  Watched stdin_;
  std::deque<std::string> stdin_queue_;
  size_t stdin_front_written_ = 0;
  bool stdin_close_asked_ = false;
  wire::ReceiveCredit stdin_credit_;
  Output out_, err_;
  wire::SendCredit credit_;  // shared by both outputs
  const uint64_t started_us_;
  uint64_t ended_us_ = 0;
  uint64_t kill_deadline_us_ = 0;  // not 0: the tree is being killed
  bool tree_dead_ = false;         // nothing of a killed tree is alive
  bool timed_out_ = false;
  bool reaped_ = false;
  int wait_status_ = 0;
  bool drop_output_ = false;  // credit is not waited for any more
  bool finished_ = false;
};

// "SIGKILL" for 9; "SIG34" and the like where there is no name.
std::string SignalName(int signal);

}  // namespace bunker::guest
