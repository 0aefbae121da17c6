// What a guest writes, as a stream of v1.OutputEvent: from the tunnel's frames to a sink, at the
// sink's pace. A reader who is slow stops the tunnel, and with it the command's own writes. A sink
// at a terminal sends, too, at the command's pace.
//
// Thread-safe. Data never passes through the core's loop; beginning and end do.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bunker/v1/bunker.pb.h"
#include "common/base/mutex.h"
#include "controller/api/bunker_use.h"
#include "controller/api/dispatcher.h"
#include "controller/api/guest_talk.h"
#include "controller/api/stream_sink.h"

namespace bunker::controller {

class OutputFeed final : public GuestTalkListener, public std::enable_shared_from_this<OutputFeed> {
 public:
  struct Start {
    link::v1::ControllerTunnelFrame opening;  // what is asked of the agent
    std::string stdin_data;                   // goes to the command after it, then stdin is closed
    bool closes_stdin = false;                // false: there is no stdin to speak of
    uint64_t offset = 0;                      // of the first byte that comes
    bool tells_offsets = false;               // each event says the offset behind it
    bool is_use = true;                       // false: the bunker is idle all the same
  };
  static constexpr absl::Duration kHeartbeat = absl::Seconds(15);

  // Goes on until the command's end, the reader's, or that of the caller's rights; a bunker that
  // is coming up is waited for until `deadline`. On the loop, in the call's turn.
  static void Run(CallContext& context, GuestTalkBackend* backend, std::string bunker_ref,
                  absl::Time deadline, Start start, std::shared_ptr<StreamSink> sink);

  OutputFeed(Core& core, Start start, std::shared_ptr<StreamSink> sink)
      : core_(core), start_(std::move(start)), sink_(std::move(sink)), offset_(start_.offset) {}

  void OnOpen(std::shared_ptr<GuestTalk> talk) override;
  void OnFrame(link::v1::AgentTunnelFrame frame) override;
  void OnWritable() override;
  void OnClosed(const absl::Status& why) override;

 private:
  void BeginLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeLocked(link::v1::AgentTunnelFrame frame) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TellExit(const link::v1::ExecExit& exit) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SendLocked(v1::OutputEvent event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnInput(TerminalSink::Input input);
  void PumpStdin() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Sends what waits while the reader takes it; then lets the next frame come.
  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Finish(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ArmHeartbeat();

  Core& core_;

  // The loop's, and set before anything else runs.
  std::shared_ptr<Admission> admission_;
  std::shared_ptr<BunkerUse> use_;
  Loop::TimerId timer_ = 0;

  Mutex mutex_;
  Start start_ ABSL_GUARDED_BY(mutex_);
  const std::shared_ptr<StreamSink> sink_;
  std::shared_ptr<GuestTalk> talk_ ABSL_GUARDED_BY(mutex_);
  size_t stdin_sent_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t offset_ ABSL_GUARDED_BY(mutex_);
  link::v1::ExecOutput waiting_ ABSL_GUARDED_BY(mutex_);  // of it, from waiting_sent_ on
  size_t waiting_sent_ ABSL_GUARDED_BY(mutex_) = 0;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;  // a frame was asked for
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;
  bool input_waits_ ABSL_GUARDED_BY(mutex_) = false;  // for the tunnel's room
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace bunker::controller
