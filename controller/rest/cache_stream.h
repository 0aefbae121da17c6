// An image's cache view as server-sent events: every row as it is, `synced`, then each row as it
// changes. With Last-Event-ID: what changed since, also across a restart of the controller.
#pragma once

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "bunker/v1/image.pb.h"
#include "controller/api/dispatcher.h"
#include "controller/rest/http_types.h"

namespace bunker::controller {

// Events: `reset` ({"reason"}: the id is too old to go on from, all rows follow), `row` (a cache
// row), `removed` ({"worker_id"}), `synced` ({}), `error`. Ends when the client goes, is too slow,
// or its key no longer serves. Thread-safe.
void StartCacheStream(Core& core, Dispatcher& dispatcher, CallInfo info,
                      const v1::GetImageCacheRequest& request, std::string last_event_id,
                      absl::Duration heartbeat, std::shared_ptr<HttpExchange> exchange);

}  // namespace bunker::controller
