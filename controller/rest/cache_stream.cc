#include "controller/rest/cache_stream.h"

#include <string>
#include <utility>

#include "controller/api/cache_feed.h"
#include "controller/api/errors.h"
#include "controller/rest/envelope.h"
#include "controller/rest/json_codec.h"
#include "controller/rest/json_value.h"
#include "controller/rest/sse.h"

namespace bunker::controller {
namespace {

constexpr char kMethod[] = "bunker.v1.Images.GetImageCache";
constexpr char kTooSlow[] =
    "this client reads too slowly and was dropped; connect again with Last-Event-ID";

std::string Single(std::string_view name, std::string_view value) {
  std::string json = "{\"";
  json.append(name);
  json += "\":";
  AppendJsonString(&json, value);
  return json + "}";
}

// So much may wait for a client; of what changes meanwhile it gets the newest.
constexpr size_t kMaxQueuedBytes = 64u << 10;

class SseSink final : public CacheSink {
 public:
  SseSink(std::string request_id, std::shared_ptr<HttpExchange> exchange)
      : request_id_(std::move(request_id)),
        exchange_(std::move(exchange)),
        last_words_(SseError(ApiError("UNAVAILABLE", kTooSlow))) {}

  void Begin(std::function<void()> closed, std::function<void()> drained) override {
    begun_ = true;
    exchange_->StartStream(SseHead(request_id_));
    closed_ = closed;
    exchange_->OnDrained(std::move(drained));
    exchange_->OnClosed(std::move(closed));
  }

  bool CanSend() override { return exchange_->QueuedBytes() < kMaxQueuedBytes; }

  void Send(const v1::CacheEvent& event) override {
    switch (event.event_case()) {
      case v1::CacheEvent::kRow: {
        std::string json;
        AppendMessageJson(&json, event.row());
        return Write(SseEvent(event.id(), "row", json));
      }
      case v1::CacheEvent::kRemovedWorkerId:
        return Write(
            SseEvent(event.id(), "removed", Single("worker_id", event.removed_worker_id())));
      case v1::CacheEvent::kSynced:
        return Write(SseEvent(event.id(), "synced", "{}"));
      case v1::CacheEvent::kReset:
        return Write(SseEvent("", "reset", Single("reason", event.reset().reason())));
      case v1::CacheEvent::EVENT_NOT_SET:
        return;
    }
  }

  void Heartbeat() override { Write(SseHeartbeat()); }

  void End(const absl::Status& why) override {
    if (!begun_) return exchange_->Send(ErrorResponse(ViewOf(why), request_id_));
    Write(SseError(why));
    exchange_->EndStream();
  }

 private:
  void Write(std::string bytes) {
    if (dropped_ || exchange_->WriteEvent(std::move(bytes), last_words_)) return;
    dropped_ = true;
    closed_();
  }

  const std::string request_id_;
  const std::shared_ptr<HttpExchange> exchange_;
  const std::string last_words_;
  bool begun_ = false;
  bool dropped_ = false;
  std::function<void()> closed_;
};

}  // namespace

void StartCacheStream(Core& core, Dispatcher& dispatcher, CallInfo info,
                      const v1::GetImageCacheRequest& request, std::string last_event_id,
                      absl::Duration heartbeat, std::shared_ptr<HttpExchange> exchange) {
  constexpr char kNoPages[] = "belongs to pages, and a stream has none; leave it out";
  auto sink = std::make_shared<SseSink>(info.request_id, std::move(exchange));
  if (request.has_limit() || request.has_cursor()) {
    const absl::Status refused =
        ValidationError(request.has_limit() ? "limit" : "cursor", kNoPages);
    // Who has no key learns that first.
    return dispatcher.Admit(
        kMethod, std::move(info),
        [sink, refused](CallContext& context) {
          context.turn.AfterCommit([sink, refused](const absl::Status&) { sink->End(refused); });
        },
        [sink](const absl::Status& status) { sink->End(status); });
  }
  v1::WatchImageCacheRequest watch;
  watch.set_image(request.image());
  watch.set_after_id(std::move(last_event_id));
  CacheFeedOptions options;
  options.heartbeat = heartbeat;
  StartCacheFeed(core, dispatcher, kMethod, std::move(info), watch, options, std::move(sink));
}

}  // namespace bunker::controller
