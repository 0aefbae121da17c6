#include "controller/api/cache_feed.h"

#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "common/base/status_macros.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"

namespace bunker::controller {
namespace {

constexpr char kTooSlow[] =
    "this client reads too slowly and was dropped; connect again with the last id it saw";
constexpr char kForgotten[] =
    "what changed since that id is not known any more; all rows follow, drop those you had";

class CacheFeed : public std::enable_shared_from_this<CacheFeed> {
 public:
  CacheFeed(Core& core, std::shared_ptr<Admission> admission, std::string image_id,
            CacheFeedOptions options, std::shared_ptr<CacheSink> sink)
      : core_(core),
        admission_(std::move(admission)),
        image_id_(std::move(image_id)),
        options_(options),
        sink_(std::move(sink)) {}

  // After the commit of the turn that took `first`; `known`: the workers that have rows.
  void Start(CacheDelta first, std::set<std::string> known, bool resumes) {
    known_ = std::move(known);
    // The sink is the feed's own: weak, so that neither keeps the other.
    const std::weak_ptr<CacheFeed> weak = weak_from_this();
    sink_->Begin(
        [weak, core = &core_] {
          core->Post([weak](Engine&, Turn& turn) {
            turn.AfterCommit([weak](const absl::Status&) {
              if (const auto self = weak.lock()) self->Stop();
            });
          });
        },
        [weak, core = &core_] {
          core->Post([weak](Engine& engine, Turn& turn) {
            if (const auto self = weak.lock()) self->Flush(engine, turn);
          });
        });
    watch_ = core_.Watch(
        [self = shared_from_this()](const ChangeSet& changes) { self->OnChanges(changes); });
    last_sent_ = core_.loop().Now();
    admission_->OnLost([weak](const absl::Status& why) {
      if (const auto self = weak.lock()) self->EndNow(why);
    });
    if (stopped_) return;
    if (resumes && first.complete) {
      v1::CacheEvent reset;
      reset.mutable_reset()->set_reason(kForgotten);
      Send(std::move(reset), 0);
    }
    Tell(std::move(first));
    ArmHeartbeat();
  }

 private:
  void Send(v1::CacheEvent event, uint64_t id) {
    if (id != 0) event.set_id(std::to_string(id));
    last_sent_ = core_.loop().Now();
    sink_->Send(event);
  }

  // What the reader takes of it now, oldest change first, so that the id it saw last says how far
  // it is. The rest is looked up again, as it then is.
  void Tell(CacheDelta delta) {
    if (stopped_) return;
    for (const std::string& id : delta.removed) gone_.insert(id);
    for (const CacheView& view : delta.rows) gone_.erase(view.entry->worker_id);
    while (!gone_.empty() && sink_->CanSend()) {
      v1::CacheEvent event;
      event.set_removed_worker_id(*gone_.begin());
      known_.erase(*gone_.begin());
      gone_.erase(gone_.begin());
      Send(std::move(event), told_);
    }
    size_t sent = 0;
    for (; gone_.empty() && sent < delta.rows.size() && sink_->CanSend(); ++sent) {
      const CacheView& view = delta.rows[sent];
      v1::CacheEvent event;
      ToMessage(view, event.mutable_row());
      known_.insert(view.entry->worker_id);
      told_ = view.entry->change_id;
      Send(std::move(event), told_);
    }
    if (!gone_.empty() || sent < delta.rows.size()) {
      dirty_ = true;
      return;
    }
    told_ = std::max(told_, delta.upto);
    if (std::exchange(synced_, true)) return;
    if (!sink_->CanSend()) {
      synced_ = false;
      dirty_ = true;
      return;
    }
    v1::CacheEvent event;
    event.mutable_synced();
    Send(std::move(event), told_);
  }

  void OnChanges(const ChangeSet& changes) {
    if (stopped_) return;
    for (const Change<CacheEntry>& change : changes.cache_entries) {
      const CacheEntry& entry = change.after != nullptr ? *change.after : *change.before;
      if (entry.image_id != image_id_) continue;
      dirty_ = true;
      if (change.after == nullptr && known_.count(entry.worker_id) > 0) {
        gone_.insert(entry.worker_id);
      }
    }
    if (!dirty_) return;
    if (std::exchange(flush_posted_, true)) return;
    core_.Post(
        [self = shared_from_this()](Engine& engine, Turn& turn) { self->Flush(engine, turn); });
  }

  // Whatever changed meanwhile is told once, as it is now.
  void Flush(Engine& engine, Turn& turn) {
    flush_posted_ = false;
    if (stopped_) return;
    if (!dirty_ || !sink_->CanSend()) return;
    auto delta = engine.CacheSince(admission_->caller(), image_id_, told_, /*live=*/synced_);
    if (!delta.ok()) return End(turn, delta.status());
    dirty_ = false;
    std::erase_if(delta->removed, [&](const std::string& id) { return known_.count(id) == 0; });
    turn.AfterCommit([self = shared_from_this(),
                      delta = *std::move(delta)](const absl::Status& committed) mutable {
      if (!committed.ok()) {
        self->dirty_ = true;  // the rows are taken back; what replaces them changes again
        return;
      }
      self->Tell(std::move(delta));
    });
  }

  void End(Turn& turn, const absl::Status& why) {
    turn.AfterCommit([self = shared_from_this(), why](const absl::Status&) { self->EndNow(why); });
  }

  void EndNow(const absl::Status& why) {
    if (stopped_) return;
    sink_->End(why);
    Stop();
  }

  // The heartbeat is also when a reader who takes nothing is noticed.
  void ArmHeartbeat() {
    if (stopped_) return;
    timer_ = core_.loop().AddTimer(options_.heartbeat, [self = shared_from_this()] {
      if (self->sink_->CanSend()) {
        self->sink_->Heartbeat();
      } else if (self->core_.loop().Now() - self->last_sent_ >= self->options_.patience) {
        return self->EndNow(ApiError("UNAVAILABLE", kTooSlow));
      }
      self->core_.Post([self](Engine& engine, Turn& turn) { self->Flush(engine, turn); });
      self->ArmHeartbeat();
    });
  }

  void Stop() {
    if (std::exchange(stopped_, true)) return;
    core_.loop().CancelTimer(timer_);
    admission_->OnLost(nullptr);
    admission_ = nullptr;
    // Not from within the watcher's own call; and as an event, which dies with the core.
    core_.Post([self = shared_from_this()](Engine&, Turn&) { self->core_.Unwatch(self->watch_); });
  }

  Core& core_;
  std::shared_ptr<Admission> admission_;
  const std::string image_id_;
  const CacheFeedOptions options_;
  const std::shared_ptr<CacheSink> sink_;
  uint64_t told_ = 0;  // the reader has every change up to it
  bool synced_ = false;
  bool dirty_ = false;  // there may be more than it has
  bool stopped_ = false;
  bool flush_posted_ = false;
  absl::Time last_sent_;
  Core::WatchId watch_ = 0;
  Loop::TimerId timer_ = 0;
  std::set<std::string> known_;  // workers that the reader may have rows of
  std::set<std::string> gone_;   // of these: whose row is to be taken back
};

struct Opening {
  std::string image_id;
  CacheDelta delta;
  std::set<std::string> known;
};

absl::StatusOr<Opening> Open(CallContext& context, const v1::WatchImageCacheRequest& request) {
  Opening opening;
  std::optional<uint64_t> after;
  uint64_t parsed = 0;
  if (absl::SimpleAtoi(request.after_id(), &parsed)) after = parsed;
  ASSIGN_OR_RETURN(const RowPtr<Image> image,
                   context.engine.FindImage(context.caller, request.image()));
  opening.image_id = image->id;
  ASSIGN_OR_RETURN(opening.delta, context.engine.CacheSince(context.caller, image->id, after));
  ASSIGN_OR_RETURN(const std::vector<CacheView> rows,
                   context.engine.ListCache(context.caller, image->id));
  for (const CacheView& view : rows) opening.known.insert(view.entry->worker_id);
  return opening;
}

}  // namespace

void StartCacheFeed(Core& core, Dispatcher& dispatcher, std::string_view method, CallInfo info,
                    const v1::WatchImageCacheRequest& request, CacheFeedOptions options,
                    std::shared_ptr<CacheSink> sink) {
  auto run = [&core, request, options, sink](CallContext& context) {
    auto opening = Open(context, request);
    if (!opening.ok()) {
      context.turn.AfterCommit(
          [sink, status = opening.status()](const absl::Status&) { sink->End(status); });
      return;
    }
    auto feed = std::make_shared<CacheFeed>(core, context.admission, opening->image_id,
                                            options, sink);
    context.turn.AfterCommit(
        [feed, sink, resumes = !request.after_id().empty(),
         opening = *std::move(opening)](const absl::Status& committed) mutable {
          if (!committed.ok()) return sink->End(committed);
          feed->Start(std::move(opening.delta), std::move(opening.known), resumes);
        });
  };
  dispatcher.Admit(method, std::move(info), std::move(run),
                   [sink](const absl::Status& status) { sink->End(status); });
}

}  // namespace bunker::controller
