// An image's cache rows as a stream of events, for whichever transport carries it: all rows, then
// `synced`, then each row as it changes. Rows are states: a reader who is slow gets the newest of
// each, and one who comes back gets what changed since the last id it saw.
//
// On the core's loop, but for StartCacheFeed().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "bunker/v1/image.pb.h"
#include "controller/api/dispatcher.h"

namespace bunker::controller {

// One reader. Every call comes from the loop, but for the destructor.
class CacheSink {
 public:
  virtual ~CacheSink() = default;

  // The feed begins; nothing was sent before. `closed` may be called on any thread, once, when the
  // reader goes; `drained`, on any thread, whenever CanSend() has become true again.
  virtual void Begin(std::function<void()> closed, std::function<void()> drained) = 0;
  // Whether it takes another event now.
  virtual bool CanSend() = 0;
  virtual void Send(const v1::CacheEvent& event) = 0;
  virtual void Heartbeat() = 0;
  // The last call. Before Begin(): the feed was refused.
  virtual void End(const absl::Status& why) = 0;
};

struct CacheFeedOptions {
  absl::Duration heartbeat = absl::Seconds(15);
  // A reader who takes nothing for so long is dropped, with an error.
  absl::Duration patience = absl::Seconds(60);
};

// Admits the call as `method` and feeds `sink` until its reader goes, is too slow, or its key no
// longer serves. `request.after_id` is the newest id that an earlier stream told. Thread-safe.
void StartCacheFeed(Core& core, Dispatcher& dispatcher, std::string_view method, CallInfo info,
                    const v1::WatchImageCacheRequest& request, CacheFeedOptions options,
                    std::shared_ptr<CacheSink> sink);

}  // namespace bunker::controller
