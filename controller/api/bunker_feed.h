// Bunkers' rows as a stream of events: all that are live, or the one that was asked for, then
// `synced`, then each row as it changes. Rows are states: a reader who is slow gets the newest of
// each, and one who comes back gets what changed since the last id it saw.
//
// On the core's loop, but for StartBunkerFeed().
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "bunker/v1/bunker.pb.h"
#include "controller/api/dispatcher.h"
#include "controller/api/event_sink.h"

namespace bunker::controller {

using BunkerSink = EventSink<v1::BunkerEvent>;

// Admits the call as `method` and feeds `sink` until its reader goes, is too slow, or its key no
// longer serves. `bunker`: an id, uuid or name; "" = all that the caller sees. A feed of one ends
// by itself once that has told its end. `after_id`: the newest id that an earlier stream told.
// Thread-safe.
void StartBunkerFeed(Core& core, Dispatcher& dispatcher, std::string_view method, CallInfo info,
                     std::string bunker, std::string after_id, FeedOptions options,
                     std::shared_ptr<BunkerSink> sink);

}  // namespace bunker::controller
