// An image's cache rows as a stream of events, for whichever transport carries it: all rows, then
// `synced`, then each row as it changes. Rows are states: a reader who is slow gets the newest of
// each, and one who comes back gets what changed since the last id it saw.
//
// On the core's loop, but for StartCacheFeed().
#pragma once

#include <memory>
#include <string>

#include "bunker/v1/image.pb.h"
#include "controller/api/dispatcher.h"
#include "controller/api/event_sink.h"

namespace bunker::controller {

using CacheSink = EventSink<v1::CacheEvent>;
using CacheFeedOptions = FeedOptions;

// Admits the call as `method` and feeds `sink` until its reader goes, is too slow, or its key no
// longer serves. `request.after_id` is the newest id that an earlier stream told. Thread-safe.
void StartCacheFeed(Core& core, Dispatcher& dispatcher, std::string_view method, CallInfo info,
                    const v1::WatchImageCacheRequest& request, CacheFeedOptions options,
                    std::shared_ptr<CacheSink> sink);

}  // namespace bunker::controller
