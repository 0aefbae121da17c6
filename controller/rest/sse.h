// The text/event-stream format.
//
// Thread-safe: free functions without state.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "controller/rest/http_types.h"

namespace bunker::controller {

// One event; `data` holds no line end. `id` "" = none.
std::string SseEvent(std::string_view id, std::string_view event, std::string_view data);

// A comment, which keeps proxies and readers awake.
std::string SseHeartbeat();

// `event: error` with {"code","message"}.
std::string SseError(const absl::Status& status);

// Status 200 and the headers.
HttpResponse SseHead(std::string_view request_id);

}  // namespace bunker::controller
