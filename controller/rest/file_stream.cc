#include "controller/rest/file_stream.h"

#include <utility>

#include "bunker/v1/file.pb.h"
#include "controller/api/enum_json.h"
#include "controller/api/errors.h"
#include "controller/api/raw_body.h"
#include "controller/rest/envelope.h"
#include "controller/rest/json_codec.h"
#include "controller/rest/sse_stream.h"

namespace bunker::controller {
namespace {

// Below the server's own bound, at which a client is dropped.
constexpr size_t kMaxQueuedBytes = 128u << 10;

class FileStream final : public StreamSink, public RawBody {
 public:
  FileStream(std::string request_id, std::optional<uint64_t> size,
             std::shared_ptr<HttpExchange> exchange)
      : request_id_(std::move(request_id)), size_(size), exchange_(std::move(exchange)) {}

  // ---- StreamSink
  void Listen(std::function<void()> closed, std::function<void()> drained) override {
    exchange_->OnDrained(std::move(drained));
    exchange_->OnClosed(std::move(closed));
  }
  void Begin() override {}
  bool CanSend() override { return true; }
  // There is one: the whole answer.
  void Send(const google::protobuf::Message& answer) override {
    exchange_->Send(OkResponse(200, answer, request_id_));
  }
  void Heartbeat() override {}
  void End(const absl::Status& why) override {
    if (has_bytes_) return why.ok() ? exchange_->EndStream() : exchange_->AbortStream();
    if (!why.ok()) exchange_->Send(ErrorResponse(ViewOf(why), request_id_));
  }

  // ---- RawBody
  std::optional<uint64_t> size() const override { return size_; }
  void Read(absl::AnyInvocable<void(absl::StatusOr<std::string>)> done) override {
    exchange_->ReadBody([done = std::move(done)](absl::StatusOr<std::string> piece) mutable {
      if (piece.ok()) return done(std::move(piece));
      const bool is_clients = absl::IsInvalidArgument(piece.status());
      done(is_clients ? ValidationError("", std::string(piece.status().message()))
                      : ApiError("UNAVAILABLE", "the client went away"));
    });
  }
  void BeginBytes(std::string content_type, std::optional<uint64_t> size) override {
    has_bytes_ = true;
    HttpResponse head;
    // Files are a tenant's: a browser must not take one for a page of this site.
    head.headers = {{"Content-Type", std::move(content_type)},
                    {"Cache-Control", "no-store"},
                    {"X-Content-Type-Options", "nosniff"},
                    {"Content-Disposition", "attachment"},
                    {"X-Request-Id", request_id_}};
    if (size) {
      exchange_->StartBody(std::move(head), *size);
    } else {
      exchange_->StartStream(std::move(head));
    }
  }
  bool CanTakeBytes() override { return exchange_->QueuedBytes() < kMaxQueuedBytes; }
  void WriteBytes(std::string bytes) override { exchange_->WriteEvent(std::move(bytes), ""); }

 private:
  const std::string request_id_;
  const std::optional<uint64_t> size_;
  const std::shared_ptr<HttpExchange> exchange_;
  bool has_bytes_ = false;  // set before End() may be called
};

class FileEventStream final : public SseStream {
 public:
  using SseStream::SseStream;

  void Send(const google::protobuf::Message& message) override {
    const auto& event = static_cast<const v1::FileEvent&>(message);
    std::string json;
    AppendMessageJson(&json, event);
    const auto* kind = v1::FileEventKind_descriptor()->FindValueByNumber(event.kind());
    Write(SseEvent("", EnumJsonName(kind), json));
  }
};

}  // namespace

std::shared_ptr<StreamSink> MakeFileEventStream(std::string request_id,
                                                std::shared_ptr<HttpExchange> exchange) {
  return std::make_shared<FileEventStream>(std::move(request_id), std::move(exchange));
}

std::shared_ptr<StreamSink> MakeFileStream(std::string request_id, std::optional<uint64_t> size,
                                           std::shared_ptr<HttpExchange> exchange) {
  return std::make_shared<FileStream>(std::move(request_id), size, std::move(exchange));
}

}  // namespace bunker::controller
