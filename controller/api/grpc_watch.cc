#include "controller/api/grpc_watch.h"

#include <deque>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "common/base/mutex.h"
#include "controller/api/bunker_feed.h"
#include "controller/api/cache_feed.h"
#include "controller/api/errors.h"
#include "controller/api/grpc_surface.h"
#include "grpcpp/impl/codegen/proto_utils.h"

namespace bunker::controller {
namespace {

// So many events wait for a reader; of what changes meanwhile it gets the newest.
constexpr size_t kMaxQueuedEvents = 64;
constexpr std::string_view kCacheMethod = "bunker.v1.Images.WatchImageCache";
constexpr std::string_view kBunkerMethod = "bunker.v1.Bunkers.WatchBunkers";

grpc::ByteBuffer Serialize(const google::protobuf::Message& event) {
  grpc::ByteBuffer bytes;
  bool own_buffer = false;
  grpc::GenericSerialize<grpc::ProtoBufferWriter, google::protobuf::Message>(event, &bytes,
                                                                             &own_buffer)
      .IgnoreError();  // a message that was just made does serialise
  return bytes;
}

class WatchSink;

// gRPC's half: lives until OnDone, which gRPC calls once the stream is finished.
class WatchReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit WatchReactor(std::shared_ptr<WatchSink> sink) : sink_(std::move(sink)) {}
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  const std::shared_ptr<WatchSink> sink_;
};

// The feed's half, whichever feed it is.
class WatchSink final : public CacheSink, public BunkerSink, public StreamSink {
 public:
  void Attach(WatchReactor* reactor) {
    MutexLock lock(mutex_);
    reactor_ = reactor;
  }

  void Begin(std::function<void()> closed, std::function<void()> drained) override {
    Listen(std::move(closed), std::move(drained));
  }
  void Begin() override {}

  void Listen(std::function<void()> closed, std::function<void()> drained) override {
    bool gone = false;
    {
      MutexLock lock(mutex_);
      gone = gone_;
      drained_ = std::move(drained);
      if (!gone) closed_ = closed;
    }
    if (gone) closed();
  }

  bool CanSend() override {
    MutexLock lock(mutex_);
    return queue_.size() < kMaxQueuedEvents;
  }

  void Send(const v1::CacheEvent& event) override { Queue(event); }
  void Send(const v1::BunkerEvent& event) override { Queue(event); }
  void Send(const google::protobuf::Message& event) override { Queue(event); }

  void Queue(const google::protobuf::Message& event) {
    MutexLock lock(mutex_);
    if (gone_ || end_) return;
    queue_.push_back(Serialize(event));
    if (queue_.size() == 1) reactor_->StartWrite(&queue_.front());
  }

  void Heartbeat() override {}  // HTTP/2 has its own

  void End(const absl::Status& why) override {
    MutexLock lock(mutex_);
    if (gone_ || end_) return;
    end_ = ToGrpcStatus(why);
    // Of a stream that breaks off, what was not begun is not told any more.
    if (!why.ok() && queue_.size() > 1) queue_.erase(queue_.begin() + 1, queue_.end());
    if (queue_.empty()) Finish(*end_);
  }

  // ---- for the reactor, on gRPC's threads ------------------------------------------------------

  void OnWritten(bool ok) {
    std::function<void()> drained;
    {
      MutexLock lock(mutex_);
      queue_.pop_front();
      if (!ok || gone_) {
        gone_ = true;
        queue_.clear();
        Finish(grpc::Status::CANCELLED);
      } else if (!queue_.empty()) {
        reactor_->StartWrite(&queue_.front());
      } else if (end_) {
        Finish(*end_);
      } else {
        drained = drained_;
      }
    }
    if (drained) drained();
    if (!ok) TellClosed();
  }

  // A write under way comes to its OnWritten() all the same.
  void OnCancelled() {
    {
      MutexLock lock(mutex_);
      gone_ = true;
      if (queue_.empty()) Finish(grpc::Status::CANCELLED);
    }
    TellClosed();
  }

  void OnDone() {
    MutexLock lock(mutex_);
    gone_ = true;
    reactor_ = nullptr;
  }

 private:
  void Finish(const grpc::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (reactor_ == nullptr || std::exchange(finished_, true)) return;
    reactor_->Finish(status);
  }

  void TellClosed() {
    std::function<void()> closed;
    {
      MutexLock lock(mutex_);
      closed = std::exchange(closed_, nullptr);
    }
    if (closed) closed();
  }

  Mutex mutex_;
  WatchReactor* reactor_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::deque<grpc::ByteBuffer> queue_ ABSL_GUARDED_BY(mutex_);  // the first is being written
  std::optional<grpc::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::function<void()> closed_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> drained_ ABSL_GUARDED_BY(mutex_);
};

void WatchReactor::OnWriteDone(bool ok) {
  sink_->OnWritten(ok);
}
void WatchReactor::OnCancel() {
  sink_->OnCancelled();
}
void WatchReactor::OnDone() {
  sink_->OnDone();
  delete this;
}

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* ServeStream(
    Core& core, Dispatcher& dispatcher, const google::protobuf::MethodDescriptor* method,
    CallInfo info, const grpc::ByteBuffer& request) {
  auto sink = std::make_shared<WatchSink>();
  auto* reactor = new WatchReactor(sink);
  sink->Attach(reactor);
  std::shared_ptr<google::protobuf::Message> message(
      google::protobuf::MessageFactory::generated_factory()
          ->GetPrototype(method->input_type())
          ->New());
  grpc::ByteBuffer bytes(request);
  const grpc::Status parsed =
      grpc::GenericDeserialize<grpc::ProtoBufferReader, google::protobuf::Message>(&bytes,
                                                                                   message.get());
  if (!parsed.ok()) {
    static_cast<StreamSink&>(*sink).End(
        ValidationError("", "the request is no " + method->input_type()->full_name()));
    return reactor;
  }
  if (method->full_name() == kCacheMethod) {
    StartCacheFeed(core, dispatcher, kCacheMethod, std::move(info),
                   static_cast<const v1::WatchImageCacheRequest&>(*message), CacheFeedOptions(),
                   std::move(sink));
  } else if (method->full_name() == kBunkerMethod) {
    const auto& watch = static_cast<const v1::WatchBunkersRequest&>(*message);
    StartBunkerFeed(core, dispatcher, kBunkerMethod, std::move(info), watch.bunker(),
                    watch.after_id(), FeedOptions(), std::move(sink));
  } else {
    dispatcher.OpenStream(method, std::move(message), std::move(info), "", std::move(sink));
  }
  return reactor;
}

}  // namespace bunker::controller
