// Bunkers' rows as server-sent events.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "controller/api/dispatcher.h"
#include "controller/rest/http_types.h"

namespace bunker::controller {

// Events: `reset` ({"reason"}: the id is too old to go on from, all live rows follow), `bunker` (a
// row), `synced` ({}), `error`. One bunker's stream ends with its end.
// Answers a GET of bunkers' events. `method`: the RPC's full name; `bunker` "": of all.
// Thread-safe.
void StartBunkerStream(Core& core, Dispatcher& dispatcher, std::string_view method, CallInfo info,
                       std::string bunker, std::string last_event_id, absl::Duration heartbeat,
                       std::shared_ptr<HttpExchange> exchange);

}  // namespace bunker::controller
