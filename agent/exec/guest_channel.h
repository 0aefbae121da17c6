// The agent's end of a guest's channel: connects, shakes hands, and runs commands over one byte
// stream. It connects again by itself when the stream breaks; the guest then ends the commands of
// the session before, and their callers get on_error here.
//
// A guest is hostile until proven otherwise: what it sends is bounded by credit, checked, and a
// breach ends the connection with a typed error, never the agent. Memory: about 0.4 MiB for the
// parser, at most 2 MiB of frames to the guest, nothing that grows with what the guest sends.
//
// Thread-safe. One thread of its own per channel, so that no guest can stall another's channel.
// Outlives its ExecHandles' use; handles stay valid, and answer with errors, after it is gone.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/exec/exec_types.h"
#include "agent/exec/file_types.h"
#include "bunker/guest/v1/guest.pb.h"
#include "common/base/cancel.h"
#include "common/base/unique_fd.h"
#include "common/wire/frame.h"

namespace bunker::agent {

class ChannelCore;

// One command, or one reader of a process, or one question about processes. Dropping the handle of
// a command before its end kills its whole process tree; of the others it ends the waiting alone.
class ExecHandle {
 public:
  ExecHandle(std::shared_ptr<ChannelCore> core, uint32_t stream);
  ~ExecHandle();
  ExecHandle(const ExecHandle&) = delete;
  ExecHandle& operator=(const ExecHandle&) = delete;

  // How many bytes were taken; where fewer than given, on_stdin_room tells when to go on. After
  // the command's end, or CloseStdin, everything is taken and dropped.
  size_t TryWriteStdin(std::string_view data);
  // Blocks until all is taken. Never from a callback. kDeadlineExceeded after `timeout`.
  absl::Status WriteStdin(std::string_view data, absl::Duration timeout);
  void CloseStdin();
  // SIGKILL for the whole tree, daemons included; the end is told as usual.
  void Kill();
  // With auto_ack = false: so much output was taken.
  void AckOutput(size_t bytes);
  // Of a command that runs on a terminal.
  void Resize(TerminalSize size);

 private:
  const std::shared_ptr<ChannelCore> core_;
  const uint32_t stream_;
};

// One operation on files. Dropping the handle before the end gives it up: nothing of an unfinished
// write is left in the guest.
class FileHandle {
 public:
  FileHandle(std::shared_ptr<ChannelCore> core, uint32_t stream);
  ~FileHandle();
  FileHandle(const FileHandle&) = delete;
  FileHandle& operator=(const FileHandle&) = delete;

  // How many bytes were taken; where fewer than given, on_room tells when to go on. After the end
  // everything is taken and dropped.
  size_t TryWrite(std::string_view data);
  // All data was written, so many bytes.
  void Commit(uint64_t size);
  // So much of the data that came was taken.
  void AckData(size_t bytes);

 private:
  const std::shared_ptr<ChannelCore> core_;
  const uint32_t stream_;
};

class GuestChannel {
 public:
  // A new connection to the guest's byte stream. Called on the channel's thread, again and again
  // while it fails (back-off 20 ms … 2 s); may block for a second or so.
  using Connector = std::function<absl::StatusOr<UniqueFd>()>;

  struct Options {
    std::string name;  // of the bunker, for the log
    Connector connect;
    absl::Duration stall_timeout = absl::Seconds(30);  // the guest takes nothing for so long
  };

  explicit GuestChannel(Options options);
  ~GuestChannel();  // ends the connection; commands that run get on_error before it returns

  // Until a session stands. kDeadlineExceeded (UPSTREAM_TIMEOUT) with the last failure seen;
  // kFailedPrecondition (BUNKER_NOT_RUNNING) where the guest says that its boot failed.
  absl::Status WaitReady(absl::Duration timeout, CancelToken* cancel = nullptr);
  bool ready() const;
  GuestFacts facts() const;

  // Host name, defaults of commands, clock, entropy. kFailedPrecondition: the guest took the rest,
  // and the message names the first thing that it could not do.
  absl::Status Configure(const guest::v1::GuestConfig& config, absl::Duration timeout);

  // One round trip.
  absl::StatusOr<absl::Duration> Ping(absl::Duration timeout);

  // Starts a command; how it went comes by callback. Errors here: not ready (kUnavailable), too
  // many at once (kResourceExhausted, RATE_LIMITED), too large (kInvalidArgument).
  absl::StatusOr<std::unique_ptr<ExecHandle>> StartExec(const ExecSpec& spec,
                                                        ExecCallbacks callbacks);

  // About the commands that live on by themselves: `call` as the guest's protocol has it. on_answer
  // or on_error tell. The same errors.
  absl::StatusOr<std::unique_ptr<ExecHandle>> CallProcess(const guest::v1::ProcessCall& call,
                                                          ExecCallbacks callbacks);
  // What a process writes, from `offset` on, until its end. AckOutput() what was taken.
  absl::StatusOr<std::unique_ptr<ExecHandle>> ReadProcess(uint32_t pid, uint64_t offset,
                                                          ExecCallbacks callbacks);
  // The same of the bunker's main program, over all its runs; without `follow` what there is now.
  absl::StatusOr<std::unique_ptr<ExecHandle>> ReadMain(uint64_t offset, bool follow,
                                                       ExecCallbacks callbacks);
  // Starts an operation on files; what comes of it comes by callback. Errors as StartExec's.
  absl::StatusOr<std::unique_ptr<FileHandle>> StartFile(const guest::v1::FileStart& start,
                                                        FileCallbacks callbacks);

  // Asks the guest to end everything, flush its disk and power off. Not answered: watch the VM.
  absl::Status Shutdown(absl::Duration grace);

 private:
  absl::StatusOr<std::unique_ptr<ExecHandle>> Attach(const guest::v1::ProcessAttach& attach,
                                                     ExecCallbacks callbacks);
  absl::StatusOr<std::unique_ptr<ExecHandle>> Open(wire::FrameType type,
                                                   const std::string& payload,
                                                   const ExecSpec& spec, ExecCallbacks callbacks);

  const std::shared_ptr<ChannelCore> core_;
};

}  // namespace bunker::agent
