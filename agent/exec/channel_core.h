// The engine of GuestChannel: one thread that connects and serves, and the state it shares with
// callers. See guest_channel.h for what everything means.
//
// Public functions are thread-safe but for Start and Stop (the owner's).
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/exec/exec_stream.h"
#include "agent/exec/exec_types.h"
#include "agent/exec/file_stream.h"
#include "agent/exec/file_types.h"
#include "agent/exec/guest_channel.h"
#include "bunker/guest/v1/guest.pb.h"
#include "common/base/mutex.h"
#include "common/base/unique_fd.h"
#include "common/wire/session.h"

namespace bunker::agent {

class ChannelCore {
 public:
  explicit ChannelCore(GuestChannel::Options options);

  void Start();
  void Stop();

  absl::Status WaitReady(absl::Duration timeout, CancelToken* cancel);
  bool ready() const;
  GuestFacts facts() const;
  absl::Status Configure(const guest::v1::GuestConfig& config, absl::Duration timeout);
  absl::StatusOr<absl::Duration> Ping(absl::Duration timeout);
  // Opens a stream by its first frame; what `spec` bounds of it is checked.
  absl::StatusOr<uint32_t> Open(wire::FrameType type, const std::string& payload,
                                const ExecSpec& spec, ExecCallbacks callbacks);
  absl::Status Shutdown(absl::Duration grace);

  // Of one command; all of them do nothing where it has ended.
  size_t TryWriteStdin(uint32_t stream, std::string_view data);
  absl::Status WriteStdin(uint32_t stream, std::string_view data, absl::Duration timeout);
  void CloseStdin(uint32_t stream);
  void Kill(uint32_t stream);
  void Detach(uint32_t stream);
  void AckOutput(uint32_t stream, size_t bytes);
  void Resize(uint32_t stream, TerminalSize size);

  // Of operations on files (channel_files.cc); nothing where it has ended.
  absl::StatusOr<uint32_t> StartFile(const guest::v1::FileStart& start, FileCallbacks callbacks);
  size_t TryWriteFile(uint32_t stream, std::string_view data);
  void CommitFile(uint32_t stream, uint64_t size);
  void AckFile(uint32_t stream, size_t bytes);
  void DetachFile(uint32_t stream);

 private:
  friend class SteppedChannel;  // of tests/fuzz: what the thread does, step by step

  struct Exec {
    ExecStream stream;
    std::shared_ptr<ExecCallbacks> callbacks;  // null: nobody listens any more
    bool auto_ack = true;
    wire::FrameType type = wire::FrameType::kExecStart;  // of its first frame
    bool wants_stdin_room = false;
    bool killed = false;
    std::optional<TerminalSize> resize = {};  // the last one asked for, not sent yet
  };
  struct File {
    FileStream stream;
    std::shared_ptr<FileCallbacks> callbacks;  // null: nobody listens any more
    bool wants_room = false;
  };
  // A question that the guest answers in order, such as a ping.
  struct Question {
    uint64_t asked = 0;
    uint64_t answered = 0;
  };

  // ---- the thread
  void Run();
  absl::Status Serve(int fd);
  absl::Status WriteSome(int fd, bool ready);
  absl::Status ReadSome(int fd, wire::HostSession* session);
  absl::Status OnHello(const wire::Frame& frame);
  absl::Status OnFrame(const wire::Frame& frame);
  absl::Status OnSessionFrame(const wire::Frame& frame);
  absl::Status OnOutput(const wire::Frame& frame);
  absl::Status OnCredit(const wire::Frame& frame);
  absl::Status OnNews(const wire::Frame& frame);
  absl::Status OnAnswer(const wire::Frame& frame);
  absl::Status OnLogEnd(const wire::Frame& frame);
  absl::Status OnEnd(const wire::Frame& frame);
  void OfferStdinRoom();
  void SendSizes();
  absl::Status OnFileFrame(const wire::Frame& frame);
  absl::Status OnFileEnd(const wire::Frame& frame);
  void OfferFileRoom();
  void LoseFiles(const absl::Status& why);
  void ExpireExecs();
  void LoseSession(const absl::Status& why);
  int WaitMillis(bool ready);
  void WaitForWake(absl::Duration duration);
  void DrainWake();

  // ---- under the lock
  void Send(uint32_t stream, wire::FrameType type, std::string_view payload)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SendKill(uint32_t stream, Exec* exec) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  size_t TryWriteLocked(uint32_t stream, std::string_view data)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AckLocked(uint32_t stream, Exec* exec, size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AckFileLocked(uint32_t stream, File* file, size_t bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  File* FindFile(uint32_t stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Exec* Find(uint32_t stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status NotReady() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Wake();

  const GuestChannel::Options options_;
  UniqueFd wake_;
  std::thread thread_;

  // The thread's alone.
  std::string out_;  // being written
  size_t out_written_ = 0;
  SteadyTime last_progress_;

  mutable Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool ready_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status last_failure_ ABSL_GUARDED_BY(mutex_);
  absl::Status boot_failure_ ABSL_GUARDED_BY(mutex_);
  GuestFacts facts_ ABSL_GUARDED_BY(mutex_);
  uint64_t epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<std::string> queue_ ABSL_GUARDED_BY(mutex_);  // frames after out_
  size_t unsent_bytes_ ABSL_GUARDED_BY(mutex_) = 0;        // in queue_ and out_
  bool queue_was_full_ ABSL_GUARDED_BY(mutex_) = false;
  uint32_t last_stream_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<uint32_t, Exec> execs_ ABSL_GUARDED_BY(mutex_);
  std::map<uint32_t, File> files_ ABSL_GUARDED_BY(mutex_);
  bool files_wait_ ABSL_GUARDED_BY(mutex_) = false;  // for room in the queue
  Question pings_ ABSL_GUARDED_BY(mutex_);
  Question configs_ ABSL_GUARDED_BY(mutex_);
  guest::v1::ConfigureResult config_result_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bunker::agent
