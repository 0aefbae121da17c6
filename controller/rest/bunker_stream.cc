#include "controller/rest/bunker_stream.h"

#include <utility>

#include "controller/api/bunker_feed.h"
#include "controller/rest/json_codec.h"
#include "controller/rest/json_value.h"
#include "controller/rest/sse.h"
#include "controller/rest/sse_sink.h"

namespace bunker::controller {
namespace {

std::string Write(const v1::BunkerEvent& event) {
  switch (event.event_case()) {
    case v1::BunkerEvent::kBunker: {
      std::string json;
      AppendMessageJson(&json, event.bunker());
      return SseEvent(event.id(), "bunker", json);
    }
    case v1::BunkerEvent::kSynced: return SseEvent(event.id(), "synced", "{}");
    case v1::BunkerEvent::kReset: {
      std::string json = "{\"reason\":";
      AppendJsonString(&json, event.reset().reason());
      return SseEvent("", "reset", json + "}");
    }
    case v1::BunkerEvent::EVENT_NOT_SET: return "";
  }
  return "";
}

}  // namespace

void StartBunkerStream(Core& core, Dispatcher& dispatcher, std::string_view method, CallInfo info,
                       std::string bunker, std::string last_event_id, absl::Duration heartbeat,
                       std::shared_ptr<HttpExchange> exchange) {
  auto sink =
      std::make_shared<SseSink<v1::BunkerEvent>>(info.request_id, std::move(exchange), Write);
  FeedOptions options;
  options.heartbeat = heartbeat;
  StartBunkerFeed(core, dispatcher, method, std::move(info), std::move(bunker),
                  std::move(last_event_id), options, std::move(sink));
}

}  // namespace bunker::controller
