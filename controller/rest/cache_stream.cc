#include "controller/rest/cache_stream.h"

#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "common/base/hex.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "controller/rest/envelope.h"
#include "controller/rest/json_codec.h"
#include "controller/rest/json_value.h"
#include "controller/rest/sse.h"

namespace bunker::controller {
namespace {

constexpr char kTooSlow[] =
    "this client reads too slowly and was dropped; connect again, the stream begins with all rows";

// One client's stream. On the loop, but for what the exchange does by itself.
class CacheStream : public std::enable_shared_from_this<CacheStream> {
 public:
  CacheStream(Core& core, std::string request_id, std::shared_ptr<Admission> admission,
              std::string image_id, absl::Duration heartbeat,
              std::shared_ptr<HttpExchange> exchange)
      : core_(core), request_id_(std::move(request_id)), admission_(std::move(admission)),
        image_id_(std::move(image_id)), heartbeat_(heartbeat), exchange_(std::move(exchange)),
        last_words_(SseError(ApiError("UNAVAILABLE", kTooSlow))) {
    SystemRng rng;
    epoch_ = HexEncode(rng.Bytes(4));
  }

  // After the commit of the turn that took the snapshot.
  void Start(const std::vector<CacheView>& snapshot) {
    exchange_->StartStream(SseHead(request_id_));
    for (const CacheView& view : snapshot) SendRow(view);
    Send(SseEvent(NextId(), "synced", "{}"));
    watch_ = core_.Watch([self = shared_from_this()](const ChangeSet& changes) {
      self->OnChanges(changes);
    });
    ArmHeartbeat();
    admission_->OnLost([self = shared_from_this()](const absl::Status& why) { self->End(why); });
    exchange_->OnClosed([self = shared_from_this()] {
      self->core_.Post([self](Engine&, Turn& turn) {
        turn.AfterCommit([self](const absl::Status&) { self->Stop(); });
      });
    });
  }

 private:
  std::string NextId() { return fmt::format("{}-{}", epoch_, ++sequence_); }

  void Send(std::string bytes) {
    if (!stopped_ && !exchange_->WriteEvent(std::move(bytes), last_words_)) Stop();
  }

  void SendRow(const CacheView& view) {
    v1::CacheRow row;
    ToMessage(view, &row);
    std::string json;
    AppendMessageJson(&json, row);
    known_.insert(view.entry->worker_id);
    Send(SseEvent(NextId(), "row", json));
  }

  void OnChanges(const ChangeSet& changes) {
    if (stopped_) return;
    for (const Change<CacheEntry>& change : changes.cache_entries) {
      const CacheEntry& entry = change.after != nullptr ? *change.after : *change.before;
      if (entry.image_id == image_id_) dirty_.insert(entry.worker_id);
    }
    if (dirty_.empty()) return;
    if (std::exchange(flush_posted_, true)) return;
    core_.Post([self = shared_from_this()](Engine& engine, Turn& turn) {
      self->Flush(engine, turn);
    });
  }

  // Whatever changed meanwhile is told once, as it is now.
  void Flush(Engine& engine, Turn& turn) {
    flush_posted_ = false;
    if (stopped_) return;
    std::set<std::string> dirty = std::exchange(dirty_, {});
    if (dirty.empty()) return;
    const auto rows = engine.ListCache(admission_->caller(), image_id_);
    if (!rows.ok()) {
      turn.AfterCommit([self = shared_from_this(), why = rows.status()](const absl::Status&) {
        self->End(why);
      });
      return;
    }
    std::vector<CacheView> changed;
    std::set<std::string> present;
    for (const CacheView& view : *rows) {
      present.insert(view.entry->worker_id);
      if (dirty.count(view.entry->worker_id) > 0) changed.push_back(view);
    }
    std::vector<std::string> removed;
    for (const std::string& id : dirty) {
      if (present.count(id) == 0 && known_.count(id) > 0) removed.push_back(id);
    }
    turn.AfterCommit([self = shared_from_this(), changed = std::move(changed),
                      removed = std::move(removed),
                      dirty = std::move(dirty)](const absl::Status& committed) mutable {
      if (!committed.ok()) return self->dirty_.merge(dirty);
      for (const CacheView& view : changed) self->SendRow(view);
      for (const std::string& id : removed) self->SendRemoved(id);
    });
  }

  void SendRemoved(const std::string& worker_id) {
    known_.erase(worker_id);
    std::string json = "{\"worker_id\":";
    AppendJsonString(&json, worker_id);
    Send(SseEvent(NextId(), "removed", json + "}"));
  }

  void End(const absl::Status& why) {
    if (stopped_) return;
    Send(SseError(why));
    exchange_->EndStream();
    Stop();
  }

  void ArmHeartbeat() {
    if (stopped_) return;
    timer_ = core_.loop().AddTimer(heartbeat_, [self = shared_from_this()] {
      self->Send(SseHeartbeat());
      self->ArmHeartbeat();
    });
  }

  void Stop() {
    if (std::exchange(stopped_, true)) return;
    core_.loop().CancelTimer(timer_);
    exchange_->OnClosed([] {});  // what it held was this stream
    admission_->OnLost(nullptr);
    admission_ = nullptr;
    // Not from within the watcher's own call; and as an event, which dies with the core.
    core_.Post([self = shared_from_this()](Engine&, Turn&) { self->core_.Unwatch(self->watch_); });
  }

  Core& core_;
  const std::string request_id_;
  std::shared_ptr<Admission> admission_;
  const std::string image_id_;
  const absl::Duration heartbeat_;
  const std::shared_ptr<HttpExchange> exchange_;
  const std::string last_words_;
  std::string epoch_;  // of this stream, so that ids of two streams never look alike
  uint64_t sequence_ = 0;
  bool stopped_ = false;
  bool flush_posted_ = false;
  Core::WatchId watch_ = 0;
  Loop::TimerId timer_ = 0;
  std::set<std::string> dirty_;  // workers whose rows changed and were not told yet
  std::set<std::string> known_;  // workers that the client has rows of
};

struct Snapshot {
  std::string image_id;
  std::vector<CacheView> rows;
};

absl::StatusOr<Snapshot> TakeSnapshot(CallContext& context,
                                      const v1::GetImageCacheRequest& request) {
  constexpr char kNoPages[] = "belongs to pages, and a stream has none; leave it out";
  if (request.has_limit()) return ValidationError("limit", kNoPages);
  if (request.has_cursor()) return ValidationError("cursor", kNoPages);
  Snapshot snapshot;
  ASSIGN_OR_RETURN(const RowPtr<Image> image,
                   context.engine.FindImage(context.caller, request.image()));
  snapshot.image_id = image->id;
  ASSIGN_OR_RETURN(snapshot.rows, context.engine.ListCache(context.caller, image->id));
  return snapshot;
}

}  // namespace

void StartCacheStream(Core& core, Dispatcher& dispatcher, CallInfo info,
                      const v1::GetImageCacheRequest& request, absl::Duration heartbeat,
                      std::shared_ptr<HttpExchange> exchange) {
  const std::string id = info.request_id;
  auto run = [&core, heartbeat, exchange, id, request](CallContext& context) {
    auto snapshot = TakeSnapshot(context, request);
    if (!snapshot.ok()) {
      context.turn.AfterCommit([exchange, id, status = snapshot.status()](const absl::Status&) {
        exchange->Send(ErrorResponse(ViewOf(status), id));
      });
      return;
    }
    auto stream =
        std::make_shared<CacheStream>(core, context.info.request_id, context.admission,
                                      snapshot->image_id, heartbeat, exchange);
    context.turn.AfterCommit([stream, exchange, id, rows = std::move(snapshot->rows)](
                                 const absl::Status& committed) {
      if (!committed.ok()) return exchange->Send(ErrorResponse(ViewOf(committed), id));
      stream->Start(rows);
    });
  };
  dispatcher.Admit("bunker.v1.Images.GetImageCache", std::move(info), std::move(run),
                   [exchange, id](const absl::Status& status) {
                     exchange->Send(ErrorResponse(ViewOf(status), id));
                   });
}

}  // namespace bunker::controller
