// The table of processes, and what the host asks of it: start, list, signal, write to, listen to.
// Beside it main, the image's own command, which is listened to in the same way.
//
// Bounded: kMaxRunning at once, kMaxRows in all; of those that have ended the oldest go first, all
// of them after an hour. Driven by ExecServer's loop; not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "agent/guest/launcher.h"
#include "agent/guest/main_program.h"
#include "agent/guest/outbox.h"
#include "agent/guest/poller.h"
#include "agent/guest/process.h"
#include "common/wire/session.h"

namespace bunker::guest {

class ProcessServer final : public Process::Listener {
 public:
  static constexpr size_t kMaxRunning = 32;
  static constexpr size_t kMaxRows = 64;
  static constexpr size_t kMaxListeners = 64;
  static constexpr size_t kMaxMainWaits = 16;
  static constexpr uint64_t kTokenBit = uint64_t{1} << 61;  // of all its tokens in the poller

  // Takes down what is left of a process's command.
  using Retire = std::function<void(ExecSession*)>;

  // The pointers outlive this.
  ProcessServer(Launcher* launcher, Poller* poller, Outbox* outbox, Retire retire)
      : launcher_(launcher), poller_(poller), outbox_(outbox), retire_(std::move(retire)) {}

  // Starts main, unless it was started before.
  void StartMain(const v1::MainProgram& program);
  // A frame of a stream. False: it is none of this.
  bool OnFrame(const wire::Frame& frame);
  // The host begins a new session: nobody listens any more, the processes live on.
  void StartSession();
  void OnReady(uint64_t token);
  void OnReaped(pid_t pid, int wait_status);
  void OnRoom();
  // As ExecSession's.
  uint64_t NextWakeMicros() const;
  void RunTimers(uint64_t now_us);
  // Takes down what has ended.
  void Collect();

  void OnProcessStarted(Process& process) override;
  void OnProcessFailed(Process& process, const CommandError& error) override;
  void OnProcessNews(Process& process) override;
  void OnWritten(Process& process, uint32_t stream, size_t taken) override;

 private:
  static constexpr pid_t kMainPid = 0;  // in place of main's own, which changes

  // A stream on which the host reads a process's output.
  struct Reader {
    pid_t pid = kMainPid;
    bool follow = true;
    uint64_t offset = 0;
    wire::SendCredit credit;
  };

  void Call(uint32_t stream, const v1::ProcessCall& call);
  void Start(uint32_t stream, const v1::ExecStart& start);
  void Signal(uint32_t stream, const v1::ProcessSignal& signal, bool allow_root);
  void Write(uint32_t stream, const v1::ProcessWrite& write, bool allow_root);
  void CloseStdin(uint32_t stream, pid_t pid, bool allow_root);
  void WaitForMain(uint32_t stream, const v1::MainWait& wait);
  void OnMainChanged();
  void Attach(uint32_t stream, const v1::ProcessAttach& attach);
  // Null: there is none of that pid.
  const OutputSource* FindSource(pid_t pid) const;
  void OnNewsOf(pid_t pid);
  void OnStreamFrame(const wire::Frame& frame);
  // The process, or null and an answer that says why.
  Process* Find(uint32_t stream, pid_t pid);
  Process* FindToChange(uint32_t stream, pid_t pid, bool allow_root);
  void AnswerRow(uint32_t stream, const Process& process);
  // True once the stream has been told the end.
  bool Pump(uint32_t stream, Reader* reader);
  bool MakeRoom();
  void Forget(pid_t pid);

  Launcher* const launcher_;
  Poller* const poller_;
  Outbox* const outbox_;
  const Retire retire_;
  std::map<pid_t, std::unique_ptr<Process>> processes_;
  std::map<uint32_t, Reader> readers_;    // by stream
  std::map<pid_t, uint32_t> starts_;      // streams that wait for a start
  std::map<uint32_t, pid_t> writes_;      // streams that wait for a write
  std::unique_ptr<MainProgram> main_;     // null: there is none
  std::map<uint32_t, uint64_t> main_waits_;  // streams that wait for another row than that serial
};

}  // namespace bunker::guest
