#include "controller/api/file_events.h"

#include <optional>
#include <string>
#include <utility>

#include "bunker/link/v1/agent_link.pb.h"
#include "bunker/v1/file.pb.h"
#include "common/base/utf8.h"
#include "controller/api/file_records.h"
#include "controller/api/raw_body.h"

namespace bunker::controller {
namespace {

using Told = link::v1::FileEvent;

// Of a record that has not come whole; a name has at most 255 bytes.
constexpr size_t kMaxPartialBytes = 4096;

v1::FileEventKind KindOf(Told::Kind kind) {
  switch (kind) {
    case Told::CREATED: return v1::FILE_EVENT_KIND_CREATED;
    case Told::MODIFIED: return v1::FILE_EVENT_KIND_MODIFIED;
    case Told::REMOVED: return v1::FILE_EVENT_KIND_REMOVED;
    case Told::MOVED_FROM: return v1::FILE_EVENT_KIND_MOVED_FROM;
    case Told::MOVED_TO: return v1::FILE_EVENT_KIND_MOVED_TO;
    case Told::ATTRIBUTES: return v1::FILE_EVENT_KIND_ATTRIBUTES;
    case Told::ENDED: return v1::FILE_EVENT_KIND_ENDED;
    default: return v1::FILE_EVENT_KIND_LOST;  // not understood: something happened
  }
}

class FileEventSink final : public StreamSink, public RawBody {
 public:
  explicit FileEventSink(std::shared_ptr<StreamSink> reader) : reader_(std::move(reader)) {}

  // ---- StreamSink
  void Listen(std::function<void()> closed, std::function<void()> drained) override {
    reader_->Listen(std::move(closed), std::move(drained));
  }
  void Begin() override { reader_->Begin(); }
  bool CanSend() override { return reader_->CanSend(); }
  void Send(const google::protobuf::Message& event) override { reader_->Send(event); }
  void Heartbeat() override { reader_->Heartbeat(); }
  void End(const absl::Status& why) override { reader_->End(why); }

  // ---- RawBody
  std::optional<uint64_t> size() const override { return std::nullopt; }
  void Read(absl::AnyInvocable<void(absl::StatusOr<std::string>)>) override {}
  void BeginBytes(std::string, std::optional<uint64_t>) override { reader_->Begin(); }
  void KeepAwake() override {
    if (reader_->CanSend()) reader_->Heartbeat();
  }
  // A frame may hold thousands of events: what the reader has no room for waits here.
  bool CanTakeBytes() override {
    Pump();
    return waiting_.size() - sent_ <= kMaxPartialBytes && reader_->CanSend();
  }
  void WriteBytes(std::string bytes) override {
    if (broken_) return;
    waiting_.erase(0, std::exchange(sent_, 0));
    waiting_ += bytes;
    Pump();
  }

 private:
  void Pump() {
    while (!broken_ && reader_->CanSend()) {
      std::string_view rest = std::string_view(waiting_).substr(sent_);
      const size_t before = rest.size();
      const std::string_view record = TakeRecord(&rest);
      if (!record.empty()) {
        sent_ += before - rest.size();
        Tell(record);
        continue;
      }
      const bool is_partial = rest.size() == before && before <= kMaxPartialBytes;
      if (is_partial) return;
      broken_ = true;
      waiting_.clear();
      sent_ = 0;
      Tell("not a record");
    }
  }

  void Tell(std::string_view record) {
    Told told;
    if (!told.ParseFromArray(record.data(), static_cast<int>(record.size()))) told.Clear();
    v1::FileEvent event;
    event.set_kind(KindOf(told.kind()));
    event.set_name(ToValidUtf8(told.name()));
    event.set_is_folder(told.is_folder());
    if (told.cookie() != 0) event.set_cookie(told.cookie());
    reader_->Send(event);
  }

  const std::shared_ptr<StreamSink> reader_;
  // FileTransfer's calls don't overlap.
  std::string waiting_;  // records, from sent_ on
  size_t sent_ = 0;
  bool broken_ = false;
};

}  // namespace

std::shared_ptr<StreamSink> MakeFileEventSink(std::shared_ptr<StreamSink> reader) {
  return std::make_shared<FileEventSink>(std::move(reader));
}

}  // namespace bunker::controller
