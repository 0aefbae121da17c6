// One operation on a bunker's files, from a caller that was let in to its result: waits for the
// bunker, has the guest do it, and passes the bytes on as fast as the slower end takes them.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "controller/api/bunker_use.h"
#include "controller/api/guest_talk.h"
#include "controller/api/raw_body.h"
#include "controller/api/stream_sink.h"

namespace bunker::controller {

struct FileOutcome {
  link::v1::FileHead head;
  link::v1::FileEnd end;
  std::string rows;         // of a folder: length-prefixed FileRows
  bool sent_bytes = false;  // the answer has left through the RawBody
};

// Thread-safe.
class FileTransfer final : public GuestTalkListener,
                           public std::enable_shared_from_this<FileTransfer> {
 public:
  // Once, on the core's loop.
  using Done = std::function<void(absl::StatusOr<FileOutcome>)>;

  // `sink`: of a call that is a stream; a RawBody, too, where bytes come or go. `done` ends it.
  // Else null, and the call's cancel is set. On the loop, in the call's turn.
  static void Run(CallContext& context, GuestTalkBackend* backend, std::string bunker_ref,
                  link::v1::FileStart start, std::shared_ptr<StreamSink> sink, Done done);

  FileTransfer(Core& core, link::v1::FileStart start, std::shared_ptr<RawBody> body, Done done);

  void OnOpen(std::shared_ptr<GuestTalk> talk) override;
  void OnFrame(link::v1::AgentTunnelFrame frame) override;
  void OnWritable() override;
  void OnClosed(const absl::Status& why) override;

 private:
  using SteadyTime = std::chrono::steady_clock::time_point;

  bool uploads() const;
  void OnHead(link::v1::FileHead head) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnData(std::string data) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReadOn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PumpUpload() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnPiece(absl::StatusOr<std::string> piece);
  void OnDrained();
  void ListenTo(CallContext& context, StreamSink& sink);
  void Cancel();
  void ArmTimer();
  void CheckProgress();
  void Finish(const absl::Status& status);
  void Progress() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Constant after construction.
  Core& core_;
  const std::shared_ptr<RawBody> body_;

  // The loop's.
  std::shared_ptr<BunkerUse> use_;
  std::shared_ptr<Admission> admission_;  // of a stream, until it ends
  Loop::TimerId timer_ = 0;

  Mutex mutex_;
  link::v1::FileStart start_ ABSL_GUARDED_BY(mutex_);
  Done done_ ABSL_GUARDED_BY(mutex_);  // null: finished
  std::shared_ptr<GuestTalk> talk_ ABSL_GUARDED_BY(mutex_);
  FileOutcome outcome_ ABSL_GUARDED_BY(mutex_);
  SteadyTime progress_ ABSL_GUARDED_BY(mutex_);
  bool head_seen_ ABSL_GUARDED_BY(mutex_) = false;
  bool reading_body_ ABSL_GUARDED_BY(mutex_) = false;   // the client is asked for a piece
  bool client_is_slow_ ABSL_GUARDED_BY(mutex_) = false;  // it takes nothing now
  bool committed_ ABSL_GUARDED_BY(mutex_) = false;
  bool answering_ ABSL_GUARDED_BY(mutex_) = false;      // bytes go to the client
  uint64_t sent_bytes_ ABSL_GUARDED_BY(mutex_) = 0;     // to the guest
  uint64_t left_bytes_ ABSL_GUARDED_BY(mutex_) = 0;     // to come from it, where that is known
  bool agent_is_slow_ ABSL_GUARDED_BY(mutex_) = false;  // OnWritable() comes first
};

}  // namespace bunker::controller
