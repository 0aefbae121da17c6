#include "controller/rest/sse.h"

#include <fmt/format.h>

#include "controller/api/errors.h"
#include "controller/rest/json_value.h"

namespace bunker::controller {

std::string SseEvent(std::string_view id, std::string_view event, std::string_view data) {
  std::string text;
  if (!id.empty()) text += fmt::format("id: {}\n", id);
  return text + fmt::format("event: {}\ndata: {}\n\n", event, data);
}

std::string SseHeartbeat() { return ": alive\n\n"; }

std::string SseError(const absl::Status& status) {
  const ErrorView view = ViewOf(status);
  std::string data = "{\"code\":";
  AppendJsonString(&data, view.row->reason);
  data += ",\"message\":";
  AppendJsonString(&data, view.message);
  data += '}';
  return SseEvent("", "error", data);
}

HttpResponse SseHead(std::string_view request_id) {
  HttpResponse head;
  head.status = 200;
  head.headers = {{"Content-Type", "text/event-stream"},
                  {"Cache-Control", "no-store"},
                  {"X-Content-Type-Options", "nosniff"},
                  {"X-Request-Id", std::string(request_id)}};
  return head;
}

}  // namespace bunker::controller
