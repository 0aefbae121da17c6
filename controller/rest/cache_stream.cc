#include "controller/rest/cache_stream.h"

#include <string>
#include <utility>

#include "controller/api/cache_feed.h"
#include "controller/api/errors.h"
#include "controller/rest/json_codec.h"
#include "controller/rest/json_value.h"
#include "controller/rest/sse.h"
#include "controller/rest/sse_sink.h"

namespace bunker::controller {
namespace {

constexpr char kMethod[] = "bunker.v1.Images.GetImageCache";

std::string Single(std::string_view name, std::string_view value) {
  std::string json = "{\"";
  json.append(name);
  json += "\":";
  AppendJsonString(&json, value);
  return json + "}";
}

std::string Write(const v1::CacheEvent& event) {
  switch (event.event_case()) {
    case v1::CacheEvent::kRow: {
      std::string json;
      AppendMessageJson(&json, event.row());
      return SseEvent(event.id(), "row", json);
    }
    case v1::CacheEvent::kRemovedWorkerId:
      return SseEvent(event.id(), "removed", Single("worker_id", event.removed_worker_id()));
    case v1::CacheEvent::kSynced: return SseEvent(event.id(), "synced", "{}");
    case v1::CacheEvent::kReset:
      return SseEvent("", "reset", Single("reason", event.reset().reason()));
    case v1::CacheEvent::EVENT_NOT_SET: return "";
  }
  return "";
}

}  // namespace

void StartCacheStream(Core& core, Dispatcher& dispatcher, CallInfo info,
                      const v1::GetImageCacheRequest& request, std::string last_event_id,
                      absl::Duration heartbeat, std::shared_ptr<HttpExchange> exchange) {
  constexpr char kNoPages[] = "belongs to pages, and a stream has none; leave it out";
  auto sink =
      std::make_shared<SseSink<v1::CacheEvent>>(info.request_id, std::move(exchange), Write);
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
