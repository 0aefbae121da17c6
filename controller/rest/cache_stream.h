// An image's cache view as server-sent events: every row as it is, `synced`, then each row as it
// changes. Rows are states, so a client that comes back gets all of them again and misses nothing.
#pragma once

#include <memory>

#include "absl/time/time.h"
#include "bunker/v1/image.pb.h"
#include "controller/api/dispatcher.h"
#include "controller/rest/http_types.h"

namespace bunker::controller {

// Events: `row` (a cache row), `removed` ({"worker_id"}), `synced` ({}), `error`. Ends when the
// client goes, is too slow, or its key no longer serves. Thread-safe.
void StartCacheStream(Core& core, Dispatcher& dispatcher, CallInfo info,
                      const v1::GetImageCacheRequest& request, absl::Duration heartbeat,
                      std::shared_ptr<HttpExchange> exchange);

}  // namespace bunker::controller
