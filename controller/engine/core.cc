#include "controller/engine/core.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/base/reason.h"

namespace bunker::controller {
namespace {

double SecondsSince(int64_t began_ns) {
  return static_cast<double>(absl::GetCurrentTimeNanos() - began_ns) / 1e9;
}

}  // namespace

Core::Core(Loop& loop, Store& store, Engine& engine, Options options)
    : loop_(loop), store_(store), engine_(engine), options_(options) {}

Core::~Core() {
  *alive_ = false;
  if (tick_timer_ != 0) loop_.CancelTimer(tick_timer_);
}

void Core::Start() { Tick(); }

void Core::Tick() {
  if (!tick_posted_) PostTick();
  tick_timer_ = loop_.AddTimer(options_.tick_period, [this] { Tick(); });
}

// Behind what has come meanwhile, until nothing more is due.
void Core::PostTick() {
  tick_posted_ = true;
  Post([this](Engine& engine, Turn& turn) {
    tick_posted_ = false;
    if (engine.Tick(turn)) PostTick();
  });
}

void Core::Post(Event event) {
  {
    MutexLock lock(mutex_);
    inbox_.push_back(std::move(event));
  }
  ScheduleDrain();
}

void Core::ScheduleDrain() {
  {
    MutexLock lock(mutex_);
    if (drain_posted_ || inbox_.empty()) return;
    drain_posted_ = true;
    drain_posted_ns_ = absl::GetCurrentTimeNanos();
  }
  loop_.Post([this, alive = alive_] {
    if (*alive) Drain();
  });
}

void Core::Drain() {
  BUNKER_CHECK(loop_.OnLoop());
  std::vector<Event> events;
  {
    MutexLock lock(mutex_);
    drain_posted_ = false;
    stats_.lag_seconds.Observe(SecondsSince(drain_posted_ns_));
    const size_t room = options_.max_batch_events > filling_events_
                            ? options_.max_batch_events - filling_events_
                            : 0;
    size_t count = std::min({inbox_.size(), options_.max_turn_events, room});
    for (; count > 0; --count) {
      events.push_back(std::move(inbox_.front()));
      inbox_.pop_front();
    }
  }
  // Never back: ids, deadlines and lists rely on it.
  last_now_ = std::max(last_now_, loop_.Now());
  const absl::Time began = last_now_;
  if (filling_ == nullptr) filling_ = std::make_unique<Turn>(last_now_);
  size_t handled = 0;
  while (handled < events.size()) {
    filling_->set_now(last_now_);
    events[handled](engine_, *filling_);
    engine_.Settle(*filling_);
    events[handled] = nullptr;
    ++handled;
    last_now_ = std::max(last_now_, loop_.Now());
    if (last_now_ - began >= options_.max_turn) break;
  }
  stats_.turns.Add();
  stats_.events.Add(handled);
  // Events that neither wrote nor answered take no room in the batch.
  filling_events_ = filling_->empty() ? 0 : filling_events_ + handled;
  if (handled < events.size()) {
    MutexLock lock(mutex_);
    inbox_.insert(inbox_.begin(), std::make_move_iterator(events.begin() + handled),
                  std::make_move_iterator(events.end()));
  }
  Seal();
  // With a batch on its way and a full one waiting, the inbox waits for the commit.
  if (filling_events_ < options_.max_batch_events) ScheduleDrain();
}

void Core::Seal() {
  if (in_flight_ != nullptr || filling_ == nullptr || filling_->empty()) return;
  std::unique_ptr<Turn> turn = std::move(filling_);
  filling_events_ = 0;
  ChangeSet changes;
  changes.sequence = ++sequence_;
  Batch batch;
  turn->Collect(batch, changes);
  if (batch.empty()) {
    // Nothing for the disk, and nothing is on its way there: what was read is durable.
    Release(std::move(turn), changes, absl::OkStatus());
    return;
  }
  in_flight_ = std::make_unique<InFlight>();
  in_flight_->turn = std::move(turn);
  in_flight_->changes = std::move(changes);
  in_flight_->rows = batch.size();
  in_flight_->began_ns = absl::GetCurrentTimeNanos();
  store_.Commit(std::move(batch), [this, alive = alive_](const absl::Status& status) {
    loop_.Post([this, alive, status] {
      if (*alive) OnCommitted(status);
    });
  });
}

void Core::OnCommitted(const absl::Status& status) {
  BUNKER_CHECK(in_flight_ != nullptr);
  store_has_room_.store(status.ok(), std::memory_order_relaxed);
  if (!status.ok()) {
    stats_.store_errors.Add();
    RollBack(status);
  } else {
    stats_.commits.Add();
    stats_.rows.Add(in_flight_->rows);
    stats_.batch_rows.Observe(static_cast<double>(in_flight_->rows));
    stats_.commit_seconds.Observe(SecondsSince(in_flight_->began_ns));
    std::unique_ptr<InFlight> done = std::move(in_flight_);
    Release(std::move(done->turn), done->changes, status);
  }
  Seal();
  ScheduleDrain();
}

// The batch is not on disk and will not be. What was handled since stands on it, so it goes too,
// newest first; then memory is what the disk has.
void Core::RollBack(const absl::Status& cause) {
  Log(Severity::kError, "store.no_room", {{"error", cause.ToString()}});
  const absl::Status answer =
      ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                  "the controller's disk is full, nothing was changed: try again once the operator "
                  "has made room");
  std::unique_ptr<Turn> later = std::move(filling_);
  filling_events_ = 0;
  if (later != nullptr) later->RollbackTo(0);
  in_flight_->turn->RollbackTo(0);
  std::unique_ptr<InFlight> failed = std::move(in_flight_);
  Release(std::move(failed->turn), ChangeSet{}, answer);
  if (later != nullptr) Release(std::move(later), ChangeSet{}, answer);
}

void Core::Release(std::unique_ptr<Turn> turn, const ChangeSet& changes,
                   const absl::Status& status) {
  std::vector<Turn::Output> outputs = turn->TakeOutputs();
  for (Turn::Output& output : outputs) {
    output(status);
    output = nullptr;
  }
  if (!status.ok() || !turn->wrote()) return;
  OnBunkerChanges(changes);
  // A watcher may unwatch itself or others.
  std::vector<WatchId> ids;
  for (const auto& [id, watcher] : watchers_) ids.push_back(id);
  for (const WatchId id : ids) {
    const auto it = watchers_.find(id);
    if (it == watchers_.end()) continue;
    const Watcher watcher = it->second;
    watcher(changes);
  }
}

Core::WatchId Core::Watch(Watcher watcher) {
  BUNKER_CHECK(loop_.OnLoop());
  watchers_.emplace(next_watch_, std::move(watcher));
  return next_watch_++;
}

void Core::Unwatch(WatchId id) {
  BUNKER_CHECK(loop_.OnLoop());
  watchers_.erase(id);
}

namespace {

bool Settled(const RowPtr<Bunker>& row, const std::set<BunkerStatus>& statuses) {
  return row == nullptr || !row->live() || row->status == BunkerStatus::kFailed ||
         statuses.count(row->status) > 0;
}

}  // namespace

Core::WaitId Core::WaitForBunker(RowPtr<Bunker> last_seen, std::set<BunkerStatus> statuses,
                                 absl::Time deadline, BunkerDone done) {
  BUNKER_CHECK(loop_.OnLoop());
  BUNKER_CHECK(last_seen != nullptr);
  const absl::Duration left = deadline - loop_.Now();
  if (Settled(last_seen, statuses) || left <= absl::ZeroDuration()) {
    done(std::move(last_seen));
    return 0;
  }
  const std::string bunker_id = last_seen->id;
  const WaitId id = next_waiter_++;
  Waiter waiter;
  waiter.statuses = std::move(statuses);
  waiter.row = std::move(last_seen);
  waiter.done = std::move(done);
  waiter.timer =
      loop_.AddTimer(left, [this, bunker_id, id, alive = alive_] {
        if (*alive) FinishWaiter(bunker_id, id);
      });
  waiters_[bunker_id].emplace(id, std::move(waiter));
  return id;
}

void Core::CancelWait(WaitId id) {
  BUNKER_CHECK(loop_.OnLoop());
  for (auto it = waiters_.begin(); it != waiters_.end(); ++it) {
    const auto found = it->second.find(id);
    if (found == it->second.end()) continue;
    loop_.CancelTimer(found->second.timer);
    it->second.erase(found);
    if (it->second.empty()) waiters_.erase(it);
    return;
  }
}

void Core::OnBunkerChanges(const ChangeSet& changes) {
  for (const Change<Bunker>& change : changes.bunkers) {
    const auto it = waiters_.find(change.id);
    if (it == waiters_.end()) continue;
    std::vector<WaitId> settled;
    for (auto& [id, waiter] : it->second) {
      waiter.row = change.after;
      if (Settled(waiter.row, waiter.statuses)) settled.push_back(id);
    }
    for (const WaitId id : settled) FinishWaiter(change.id, id);
  }
}

void Core::FinishWaiter(const std::string& bunker_id, WaitId waiter_id) {
  const auto it = waiters_.find(bunker_id);
  if (it == waiters_.end()) return;
  const auto found = it->second.find(waiter_id);
  if (found == it->second.end()) return;
  Waiter waiter = std::move(found->second);
  it->second.erase(found);
  if (it->second.empty()) waiters_.erase(it);
  loop_.CancelTimer(waiter.timer);
  waiter.done(std::move(waiter.row));
}

}  // namespace bunker::controller
