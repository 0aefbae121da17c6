// One process of the table: a command that nobody needs to listen to. Its output is kept in a ring,
// its end is remembered, and it outlives the host's sessions.
//
// Not thread-safe: the loop's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "agent/guest/exec_peer.h"
#include "agent/guest/exec_session.h"
#include "agent/guest/launcher.h"
#include "agent/guest/output_ring.h"
#include "agent/guest/output_source.h"

namespace bunker::guest {

class Process final : public ExecPeer, public OutputSource {
 public:
  // What the owner hears; it may not destroy the process from within.
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void OnProcessStarted(Process& process) = 0;
    virtual void OnProcessFailed(Process& process, const CommandError& error) = 0;
    // More to read, or the end.
    virtual void OnProcessNews(Process& process) = 0;
    // The write under way is over; so much of it was taken.
    virtual void OnWritten(Process& process, uint32_t stream, size_t taken) = 0;
  };

  Process(const v1::ExecStart& start, Launcher::Launched launched, Poller* poller, char* scratch,
          uint64_t token_base, Listener* listener);

  pid_t pid() const { return pid_; }
  bool privileged() const { return privileged_; }  // started by who may be root
  const OutputRing& output() const override { return output_; }
  bool started() const { return started_; }
  bool ended() const override { return ended_; }
  bool failed() const { return failed_; }
  const v1::ExecExit& exit() const override { return exit_; }
  uint64_t ended_us() const { return ended_us_; }
  v1::ProcessRow Row() const;

  // Null once it has ended and ReleaseSession() was called.
  ExecSession* session() const { return session_.get(); }
  // After its end: what is left to be taken down.
  std::unique_ptr<ExecSession> ReleaseSession() { return std::move(session_); }

  // Writes to its stdin on behalf of a stream, one at a time; OnWritten() tells when it is done,
  // perhaps before this returns. False: another one is under way.
  bool Write(uint32_t stream, const std::string& data);
  // Ends the write of `stream`, if it is the one under way.
  void StopWrite(uint32_t stream);
  // Nobody waits for a write any more.
  void ForgetWrite();

  size_t Room() const override { return SIZE_MAX; }
  void OnOutput(bool is_stderr, std::string_view data) override;
  void OnStdinTaken(size_t bytes) override;
  void OnStdinDropped(size_t bytes) override;
  void OnStarted(pid_t pid) override;
  void OnExit(const v1::ExecExit& exit) override;
  void OnFailed(const CommandError& error) override;

 private:
  void EndWrite();

  const pid_t pid_;
  const uint32_t uid_;
  const bool privileged_;
  Listener* const listener_;
  v1::ProcessRow shown_;  // the command, shortened
  OutputRing output_;
  std::unique_ptr<ExecSession> session_;
  const uint64_t started_us_;
  uint64_t ended_us_ = 0;
  bool started_ = false;
  bool ended_ = false;
  bool failed_ = false;
  v1::ExecExit exit_;
  uint32_t write_stream_ = 0;  // 0: none is under way
  size_t write_size_ = 0;
  size_t write_taken_ = 0;
};

}  // namespace bunker::guest
