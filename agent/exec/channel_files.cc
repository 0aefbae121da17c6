// ChannelCore's part for operations on files.
#include <algorithm>
#include <utility>
#include <vector>

#include "agent/exec/channel_core.h"
#include "common/base/reason.h"

namespace bunker::agent {
namespace {

using guest::v1::FileEnd;
using guest::v1::FileHead;
using wire::FrameType;

constexpr size_t kMaxFiles = 32;
constexpr size_t kMaxUnsentBytes = 1 << 20;

absl::Status Violation(std::string_view what) {
  return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                     "the guest broke the channel's rules: " + std::string(what));
}

}  // namespace

// ---- callers --------------------------------------------------------------------------------

ChannelCore::File* ChannelCore::FindFile(uint32_t stream) {
  const auto found = files_.find(stream);
  return found == files_.end() ? nullptr : &found->second;
}

absl::StatusOr<uint32_t> ChannelCore::StartFile(const guest::v1::FileStart& start,
                                                FileCallbacks callbacks) {
  const std::string payload = start.SerializeAsString();
  if (payload.size() > wire::kMaxPayloadBytes) {
    return ReasonError(absl::StatusCode::kInvalidArgument, "VALIDATION_ERROR",
                       "the path is longer than 4095 bytes");
  }
  MutexLock lock(mutex_);
  if (absl::Status status = NotReady(); !status.ok()) return status;
  if (files_.size() >= kMaxFiles) {
    return ReasonError(absl::StatusCode::kResourceExhausted, "RATE_LIMITED",
                       "32 operations on this bunker's files are under way; wait for one to end");
  }
  const uint32_t stream = ++last_stream_;
  files_.emplace(stream,
                 File{FileStream(), std::make_shared<FileCallbacks>(std::move(callbacks))});
  Send(stream, FrameType::kFileStart, payload);
  return stream;
}

size_t ChannelCore::TryWriteFile(uint32_t stream, std::string_view data) {
  MutexLock lock(mutex_);
  File* file = FindFile(stream);
  if (file == nullptr || file->stream.committed()) return data.size();
  size_t taken = 0;
  while (taken < data.size() && unsent_bytes_ < kMaxUnsentBytes) {
    const size_t step =
        std::min<size_t>({data.size() - taken, file->stream.room(), wire::kMaxDataBytes});
    if (step == 0) break;
    Send(stream, FrameType::kFileData, data.substr(taken, step));
    file->stream.Spend(static_cast<uint32_t>(step));
    taken += step;
  }
  if (taken < data.size()) {
    file->wants_room = true;
    if (unsent_bytes_ >= kMaxUnsentBytes) files_wait_ = true;
  }
  return taken;
}

void ChannelCore::CommitFile(uint32_t stream, uint64_t size) {
  MutexLock lock(mutex_);
  File* file = FindFile(stream);
  if (file == nullptr || file->stream.committed()) return;
  file->stream.Commit();
  guest::v1::FileCommit commit;
  commit.set_size(size);
  Send(stream, FrameType::kFileCommit, commit.SerializeAsString());
}

void ChannelCore::AckFileLocked(uint32_t stream, File* file, size_t bytes) {
  const uint32_t grant = file->stream.Ack(bytes);
  if (grant == 0) return;
  guest::v1::Credit credit;
  credit.set_bytes(grant);
  Send(stream, FrameType::kFileCredit, credit.SerializeAsString());
}

void ChannelCore::AckFile(uint32_t stream, size_t bytes) {
  MutexLock lock(mutex_);
  if (File* file = FindFile(stream); file != nullptr) AckFileLocked(stream, file, bytes);
}

// The stream stays known until the guest has spoken its end, or the session ends.
void ChannelCore::DetachFile(uint32_t stream) {
  std::shared_ptr<FileCallbacks> dropped;  // destroyed after the lock is gone
  MutexLock lock(mutex_);
  File* file = FindFile(stream);
  if (file == nullptr) return;
  dropped = std::move(file->callbacks);
  Send(stream, FrameType::kFileCancel, {});
  AckFileLocked(stream, file, wire::kWindowBytes);
}

// ---- the thread -----------------------------------------------------------------------------

absl::Status ChannelCore::OnFileFrame(const wire::Frame& frame) {
  if (frame.type == FrameType::kFileEnd) return OnFileEnd(frame);
  std::shared_ptr<FileCallbacks> callbacks;
  FileHead head;
  bool tell_room = false;
  {
    MutexLock lock(mutex_);
    File* file = FindFile(frame.stream);
    if (file == nullptr) return Violation("a frame of no file");
    callbacks = file->callbacks;
    absl::Status status;
    if (frame.type == FrameType::kFileHead) {
      status = file->stream.OnHead(frame.payload, &head);
    } else if (frame.type == FrameType::kFileData) {
      status = file->stream.OnData(frame.payload);
      if (status.ok() && callbacks == nullptr)
        AckFileLocked(frame.stream, file, frame.payload.size());
    } else if (frame.type == FrameType::kFileCredit) {
      guest::v1::Credit credit;
      const bool readable = credit.ParseFromArray(frame.payload.data(),
                                                  static_cast<int>(frame.payload.size()));
      status = readable ? file->stream.OnCredit(credit.bytes()) : Violation("unreadable credit");
      tell_room = std::exchange(file->wants_room, false);
    } else {
      status = Violation("a file's frame of unknown type");
    }
    if (!status.ok()) return status;
  }
  if (callbacks == nullptr) return absl::OkStatus();
  if (frame.type == FrameType::kFileHead && callbacks->on_head) callbacks->on_head(head);
  if (frame.type == FrameType::kFileData && callbacks->on_data) callbacks->on_data(frame.payload);
  if (tell_room && callbacks->on_room) callbacks->on_room();
  return absl::OkStatus();
}

absl::Status ChannelCore::OnFileEnd(const wire::Frame& frame) {
  std::shared_ptr<FileCallbacks> callbacks;
  FileEnd end;
  {
    MutexLock lock(mutex_);
    File* file = FindFile(frame.stream);
    if (file == nullptr) return Violation("the end of no file");
    if (!end.ParseFromArray(frame.payload.data(), static_cast<int>(frame.payload.size())))
      return Violation("an unreadable end of a file");
    callbacks = std::move(file->callbacks);
    files_.erase(frame.stream);
  }
  if (callbacks == nullptr) return absl::OkStatus();
  const bool done = end.kind() == FileEnd::DONE;
  if (done && callbacks->on_end) callbacks->on_end(end);
  if (!done && callbacks->on_error) callbacks->on_error(FileEndToStatus(end));
  return absl::OkStatus();
}

// Those who were held up by a full queue, not by credit, may go on.
void ChannelCore::OfferFileRoom() {
  std::vector<std::shared_ptr<FileCallbacks>> waiting;
  {
    MutexLock lock(mutex_);
    if (!std::exchange(files_wait_, false)) return;
    for (auto& [stream, file] : files_) {
      if (file.stream.room() == 0 || !std::exchange(file.wants_room, false)) continue;
      waiting.push_back(file.callbacks);
    }
  }
  for (const auto& callbacks : waiting) {
    if (callbacks && callbacks->on_room) callbacks->on_room();
  }
}

void ChannelCore::LoseFiles(const absl::Status& why) {
  std::map<uint32_t, File> lost;
  {
    MutexLock lock(mutex_);
    lost.swap(files_);
    files_wait_ = false;
  }
  for (const auto& [stream, file] : lost) {
    if (file.callbacks && file.callbacks->on_error) file.callbacks->on_error(why);
  }
}

// ---- the public face ------------------------------------------------------------------------

FileHandle::FileHandle(std::shared_ptr<ChannelCore> core, uint32_t stream)
    : core_(std::move(core)), stream_(stream) {}
FileHandle::~FileHandle() {
  core_->DetachFile(stream_);
}
size_t FileHandle::TryWrite(std::string_view data) {
  return core_->TryWriteFile(stream_, data);
}
void FileHandle::Commit(uint64_t size) {
  core_->CommitFile(stream_, size);
}
void FileHandle::AckData(size_t bytes) {
  core_->AckFile(stream_, bytes);
}

absl::StatusOr<std::unique_ptr<FileHandle>> GuestChannel::StartFile(
    const guest::v1::FileStart& start, FileCallbacks callbacks) {
  absl::StatusOr<uint32_t> stream = core_->StartFile(start, std::move(callbacks));
  if (!stream.ok()) return stream.status();
  return std::make_unique<FileHandle>(core_, *stream);
}

}  // namespace bunker::agent
