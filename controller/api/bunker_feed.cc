#include "controller/api/bunker_feed.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"

namespace bunker::controller {
namespace {

constexpr char kTooSlow[] =
    "this client reads too slowly and was dropped; connect again with the last id it saw";
constexpr char kForgotten[] =
    "what changed since that id is not known any more; all live rows follow, drop those you had";

struct Told {
  v1::BunkerEvent event;
  uint64_t change_id = 0;
  bool is_final = false;
};

class BunkerFeed : public std::enable_shared_from_this<BunkerFeed> {
 public:
  BunkerFeed(Core& core, std::shared_ptr<Admission> admission, std::string bunker_id,
             FeedOptions options, std::shared_ptr<BunkerSink> sink)
      : core_(core),
        admission_(std::move(admission)),
        bunker_id_(std::move(bunker_id)),
        options_(options),
        sink_(std::move(sink)) {}

  // What it tells next; in an event, since it needs the engine.
  struct Batch {
    std::vector<Told> rows;
    uint64_t upto = 0;
    bool complete = false;
  };
  Batch Look(const Engine& engine, std::optional<uint64_t> after, bool live) const {
    const BunkerDelta delta = engine.BunkersSince(admission_->caller(), bunker_id_, after, live);
    Batch batch{{}, delta.upto, delta.complete};
    for (const RowPtr<Bunker>& row : delta.rows) {
      Told told{{}, row->change_id, !row->live()};
      *told.event.mutable_bunker() = BunkerRow(engine, *row);
      batch.rows.push_back(std::move(told));
    }
    return batch;
  }

  // After the commit of the turn that took `first`.
  void Start(Batch first, bool resumes) {
    // The sink is the feed's own: weak, so that neither keeps the other.
    const std::weak_ptr<BunkerFeed> weak = weak_from_this();
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
      v1::BunkerEvent reset;
      reset.mutable_reset()->set_reason(kForgotten);
      Send(std::move(reset), 0);
    }
    Tell(std::move(first));
    ArmHeartbeat();
  }

 private:
  void Send(v1::BunkerEvent event, uint64_t id) {
    if (id != 0) event.set_id(std::to_string(id));
    last_sent_ = core_.loop().Now();
    sink_->Send(event);
  }

  // What the reader takes of it now, oldest change first, so that the id it saw last says how far
  // it is. The rest is looked up again, as it then is.
  void Tell(Batch batch) {
    if (stopped_) return;
    for (Told& told : batch.rows) {
      if (!sink_->CanSend()) {
        dirty_ = true;
        return;
      }
      told_ = told.change_id;
      Send(std::move(told.event), told_);
      if (!bunker_id_.empty() && told.is_final) return EndNow(absl::OkStatus());
    }
    told_ = std::max(told_, batch.upto);
    if (synced_) return;
    if (!sink_->CanSend()) {
      dirty_ = true;
      return;
    }
    synced_ = true;
    v1::BunkerEvent event;
    event.mutable_synced();
    Send(std::move(event), told_);
  }

  // Whether a look is worth it; the engine decides what is shown.
  bool MayShow(const Bunker& row) const {
    const Caller& caller = admission_->caller();
    if (!bunker_id_.empty()) return row.id == bunker_id_;
    return row.tenant_id == caller.tenant_id || caller.super_admin() ||
           caller.role == Role::kPartnerAdmin;
  }

  void OnChanges(const ChangeSet& changes) {
    if (stopped_) return;
    for (const Change<Bunker>& change : changes.bunkers) {
      if (change.after != nullptr && MayShow(*change.after)) dirty_ = true;
    }
    if (!dirty_ || std::exchange(flush_posted_, true)) return;
    core_.Post(
        [self = shared_from_this()](Engine& engine, Turn& turn) { self->Flush(engine, turn); });
  }

  // Whatever changed meanwhile is told once, as it is now.
  void Flush(Engine& engine, Turn& turn) {
    flush_posted_ = false;
    if (stopped_ || !dirty_ || !sink_->CanSend()) return;
    dirty_ = false;
    const std::optional<uint64_t> after =
        synced_ || told_ != 0 ? std::optional<uint64_t>(told_) : std::nullopt;
    turn.AfterCommit([self = shared_from_this(), batch = Look(engine, after, /*live=*/synced_)](
                         const absl::Status& committed) mutable {
      if (!committed.ok()) {
        self->dirty_ = true;  // the rows are taken back; what replaces them changes again
        return;
      }
      self->Tell(std::move(batch));
    });
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
  const std::string bunker_id_;
  const FeedOptions options_;
  const std::shared_ptr<BunkerSink> sink_;
  uint64_t told_ = 0;  // the reader has every change up to it
  bool synced_ = false;
  bool dirty_ = false;  // there may be more than it has
  bool stopped_ = false;
  bool flush_posted_ = false;
  absl::Time last_sent_;
  Core::WatchId watch_ = 0;
  Loop::TimerId timer_ = 0;
};

}  // namespace

void StartBunkerFeed(Core& core, Dispatcher& dispatcher, std::string_view method, CallInfo info,
                     std::string bunker, std::string after_id, FeedOptions options,
                     std::shared_ptr<BunkerSink> sink) {
  auto run = [&core, bunker = std::move(bunker), after_id = std::move(after_id), options,
              sink](CallContext& context) {
    std::string id;
    if (!bunker.empty()) {
      const auto found = context.engine.FindBunker(context.caller, bunker);
      if (!found.ok()) {
        return context.turn.AfterCommit(
            [sink, status = found.status()](const absl::Status&) { sink->End(status); });
      }
      id = (*found)->id;
    }
    std::optional<uint64_t> after;
    uint64_t parsed = 0;
    if (absl::SimpleAtoi(after_id, &parsed)) after = parsed;
    auto feed =
        std::make_shared<BunkerFeed>(core, context.admission, std::move(id), options, sink);
    context.turn.AfterCommit(
        [feed, sink, resumes = !after_id.empty(),
         first = feed->Look(context.engine, after, false)](const absl::Status& committed) mutable {
          if (!committed.ok()) return sink->End(committed);
          feed->Start(std::move(first), resumes);
        });
  };
  dispatcher.Admit(method, std::move(info), std::move(run),
                   [sink](const absl::Status& status) { sink->End(status); });
}

}  // namespace bunker::controller
