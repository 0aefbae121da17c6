#include "controller/api/file_transfer.h"

#include <utility>

#include "common/base/reason.h"
#include "controller/api/errors.h"

namespace bunker::controller {
namespace {

using link::v1::AgentTunnelFrame;
using link::v1::FileStart;
using std::chrono::steady_clock;

constexpr absl::Duration kWaitForBunker = absl::Seconds(60);
constexpr absl::Duration kCheckPeriod = absl::Seconds(5);
constexpr std::chrono::seconds kNoProgress{30};
constexpr std::chrono::seconds kQuiet{10};  // of a watch; with the period below 15 s
constexpr std::chrono::seconds kLongWork{600};  // a sync of gigabytes, a large folder
constexpr size_t kMaxRowsBytes = 4u << 20;

absl::Status Stalled() {
  return ApiError("UPSTREAM_TIMEOUT",
                  "nothing has moved for too long, so it was given up; a write that was not whole "
                  "left nothing behind; look at the bunker and try again");
}

}  // namespace

FileTransfer::FileTransfer(Core& core, FileStart start, std::shared_ptr<RawBody> body, Done done)
    : core_(core),
      body_(std::move(body)),
      start_(std::move(start)),
      done_(std::move(done)),
      progress_(steady_clock::now()) {}

void FileTransfer::Run(CallContext& context, GuestTalkBackend* backend, std::string bunker_ref,
                       FileStart start, std::shared_ptr<StreamSink> sink, Done done) {
  auto transfer = std::make_shared<FileTransfer>(context.core, std::move(start),
                                                 std::dynamic_pointer_cast<RawBody>(sink),
                                                 std::move(done));
  if (sink != nullptr) {
    transfer->ListenTo(context, *sink);
  } else if (context.info.cancel != nullptr) {
    *context.info.cancel = [weak = std::weak_ptr<FileTransfer>(transfer)] {
      if (const auto self = weak.lock()) self->Cancel();
    };
  }
  transfer->use_ = BunkerUse::Begin(
      context, std::move(bunker_ref), context.turn.now() + kWaitForBunker,
      /*counts=*/true,
      [transfer, backend](const absl::StatusOr<RowPtr<Bunker>>& bunker) {
        if (!bunker.ok()) return transfer->Finish(bunker.status());
        if (backend == nullptr) {
          return transfer->Finish(
              ApiError("UNAVAILABLE", "this controller has no link to workers; start one"));
        }
        transfer->ArmTimer();
        backend->Open(**bunker, transfer);
      });
}

// Weak: the transfer holds the exchange that holds these.
void FileTransfer::ListenTo(CallContext& context, StreamSink& sink) {
  const std::weak_ptr<FileTransfer> weak = weak_from_this();
  admission_ = context.admission;
  admission_->OnLost([weak](const absl::Status& why) {
    if (const auto self = weak.lock()) self->Finish(why);
  });
  sink.Listen(
      [weak, core = &core_] {
        core->Post([weak](Engine&, Turn& turn) {
          turn.AfterCommit([weak](const absl::Status&) {
            if (const auto self = weak.lock()) self->Cancel();
          });
        });
      },
      [weak] {
        if (const auto self = weak.lock()) self->OnDrained();
      });
}

void FileTransfer::Cancel() {
  use_->Cancel();
  Finish(ApiError("UNAVAILABLE", "the client went away"));
}

bool FileTransfer::uploads() const {
  return start_.op() == FileStart::WRITE || start_.op() == FileStart::UNPACK;
}

void FileTransfer::Progress() { progress_ = steady_clock::now(); }

void FileTransfer::OnOpen(std::shared_ptr<GuestTalk> talk) {
  MutexLock lock(mutex_);
  if (!done_) return talk->End();
  Progress();
  talk_ = std::move(talk);
  link::v1::ControllerTunnelFrame frame;
  *frame.mutable_file() = start_;
  agent_is_slow_ = !talk_->Write(std::move(frame));
  talk_->ReadOn();
}

void FileTransfer::OnFrame(AgentTunnelFrame frame) {
  absl::Status status;
  {
    MutexLock lock(mutex_);
    if (!done_) return;
    Progress();
    switch (frame.frame_case()) {
      case AgentTunnelFrame::kFileHead:
        return OnHead(std::move(*frame.mutable_file_head()));
      case AgentTunnelFrame::kFileData:
        return OnData(std::move(*frame.mutable_file_data()));
      case AgentTunnelFrame::kFileEnd:
        outcome_.end = std::move(*frame.mutable_file_end());
        if (answering_ && outcome_.head.has_size() && left_bytes_ > 0)
          status = absl::DataLossError("the file's end did not come");
        break;
      case AgentTunnelFrame::kError:
        status = GuestErrorOf(frame.error());
        break;
      default:
        return ReadOn();  // of a newer agent
    }
  }
  Finish(status);
}

void FileTransfer::OnHead(link::v1::FileHead head) {
  if (std::exchange(head_seen_, true)) return ReadOn();
  outcome_.head = std::move(head);
  if (uploads()) {
    PumpUpload();
  } else if (!outcome_.head.is_folder()) {
    answering_ = true;
    outcome_.sent_bytes = true;
    left_bytes_ = outcome_.head.size();
    const bool is_tar = start_.op() == FileStart::PACK;
    body_->BeginBytes(is_tar ? "application/x-tar" : "application/octet-stream",
                      outcome_.head.has_size() ? std::optional<uint64_t>(outcome_.head.size())
                                               : std::nullopt);
  }
  ReadOn();
}

void FileTransfer::OnData(std::string data) {
  if (answering_) {
    if (outcome_.head.has_size()) left_bytes_ -= std::min<uint64_t>(left_bytes_, data.size());
    body_->WriteBytes(std::move(data));
  } else if (outcome_.rows.size() + data.size() <= kMaxRowsBytes) {
    outcome_.rows += data;
  }
  ReadOn();
}

// The next frame, once the client has room for it.
void FileTransfer::ReadOn() {
  client_is_slow_ = answering_ && !body_->CanTakeBytes();
  if (!client_is_slow_) talk_->ReadOn();
}

void FileTransfer::OnDrained() {
  MutexLock lock(mutex_);
  if (!done_ || !client_is_slow_) return;
  Progress();
  ReadOn();
}

void FileTransfer::PumpUpload() {
  if (!head_seen_ || reading_body_ || committed_ || agent_is_slow_) return;
  reading_body_ = true;
  body_->Read([self = shared_from_this()](absl::StatusOr<std::string> piece) {
    self->OnPiece(std::move(piece));
  });
}

void FileTransfer::OnPiece(absl::StatusOr<std::string> piece) {
  if (!piece.ok()) return Finish(piece.status());
  MutexLock lock(mutex_);
  reading_body_ = false;
  if (!done_) return;
  Progress();
  link::v1::ControllerTunnelFrame frame;
  if (piece->empty()) {
    committed_ = true;
    frame.mutable_file_commit()->set_size(sent_bytes_);
  } else {
    sent_bytes_ += piece->size();
    frame.set_file_data(*std::move(piece));
  }
  agent_is_slow_ = !talk_->Write(std::move(frame));
  PumpUpload();
}

void FileTransfer::OnWritable() {
  MutexLock lock(mutex_);
  agent_is_slow_ = false;
  if (!done_ || !uploads()) return;
  Progress();
  PumpUpload();
}

void FileTransfer::OnClosed(const absl::Status& why) {
  Finish(why.ok() ? ApiError("UNAVAILABLE", "the worker broke off; try again") : why);
}

void FileTransfer::ArmTimer() {
  timer_ = core_.loop().AddTimer(kCheckPeriod, [self = shared_from_this()] {
    self->timer_ = 0;
    self->CheckProgress();
  });
}

// The client's own slowness is the connection's to bound.
void FileTransfer::CheckProgress() {
  bool stalled = false;
  {
    MutexLock lock(mutex_);
    if (!done_) return;
    const bool needs_disk =
        committed_ || start_.op() == FileStart::REMOVE || start_.op() == FileStart::MOVE;
    const bool is_watch = start_.op() == FileStart::WATCH && answering_;
    const bool is_clients = reading_body_ || client_is_slow_ || is_watch;
    const auto limit = needs_disk ? kLongWork : kNoProgress;
    const auto quiet = steady_clock::now() - progress_;
    stalled = !is_clients && quiet > limit;
    if (is_watch && !client_is_slow_ && quiet > kQuiet) {
      Progress();
      body_->KeepAwake();
    }
  }
  if (stalled) return Finish(Stalled());
  ArmTimer();
}

// Once, whatever came first: tells the caller, ends the guest's work where it still runs.
void FileTransfer::Finish(const absl::Status& status) {
  Done done;
  FileOutcome outcome;
  std::shared_ptr<GuestTalk> talk;
  {
    MutexLock lock(mutex_);
    if (!done_) return;
    done = std::exchange(done_, nullptr);
    outcome = std::move(outcome_);
    talk = std::exchange(talk_, nullptr);
  }
  if (talk != nullptr) talk->End();
  core_.loop().Post([self = shared_from_this(), done = std::move(done), status,
                     outcome = std::move(outcome)]() mutable {
    if (self->timer_ != 0) self->core_.loop().CancelTimer(std::exchange(self->timer_, 0));
    self->use_->End();
    if (self->admission_ != nullptr) self->admission_->OnLost(nullptr);
    self->admission_ = nullptr;
    done(status.ok() ? absl::StatusOr<FileOutcome>(std::move(outcome)) : status);
  });
}

}  // namespace bunker::controller
