// The controller's one loop: it takes events, lets the engine handle them in turns, commits what
// they wrote in batches, and only then lets anything out.
//
//   Post(event) → turn (≤ 256 events or 2 ms) → batch → store's commit thread
//                                  next turn fills ↲        ↳ outputs in order, then watchers
//
// Where the store has no room, the batch and everything handled since are taken back and their
// outputs get UNAVAILABLE.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/mutex.h"
#include "common/loop/event_loop.h"
#include "common/metrics/metrics.h"
#include "controller/engine/change_set.h"
#include "controller/engine/engine.h"
#include "controller/engine/turn.h"
#include "controller/store/store.h"

namespace bunker::controller {

// What the loop does, for the operator's metrics.
struct CoreStats {
  metrics::Counter turns;
  metrics::Counter events;
  metrics::Counter commits;
  metrics::Counter rows;          // written
  metrics::Counter store_errors;  // batches that found no room
  metrics::Histogram batch_rows{metrics::BatchSizes()};
  metrics::Histogram commit_seconds{metrics::StepSeconds()};
  metrics::Histogram lag_seconds{metrics::StepSeconds()};  // from asking for a turn to its begin
};

class Core {
 public:
  // Mutates through the engine, never by keeping the references. Must not block.
  using Event = absl::AnyInvocable<void(Engine&, Turn&)>;
  using Watcher = std::function<void(const ChangeSet&)>;
  using WatchId = uint64_t;

  struct Options {
    size_t max_turn_events = 256;
    absl::Duration max_turn = absl::Milliseconds(2);
    // Events taken into the batch that fills while another one commits; then the inbox waits.
    size_t max_batch_events = 4096;
    absl::Duration tick_period = absl::Seconds(1);
  };

  // All must outlive the core. The engine is loaded (Engine::Load).
  Core(Loop& loop, Store& store, Engine& engine, Options options);
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  // Begins to tick. On the loop or before it runs; then, once.
  void Start();

  // Hands `event` to the loop. Thread-safe. Events run in the order of posting.
  void Post(Event event);

  // `watcher` gets every batch that changed something, on the loop, after its outputs and in
  // commit order. What it sees is durable. Register it from an output (Turn::AfterCommit) to go on
  // from a snapshot taken in that turn: the changes of that same batch are still delivered, so a
  // row may be seen twice, but none is missed. On the loop only.
  WatchId Watch(Watcher watcher);
  void Unwatch(WatchId id);

  // `done` runs once on the loop, when the committed bunker is in one of `statuses`, or final,
  // failed or gone (null), or at `deadline`, with the row as it then is. On the loop only.
  using BunkerDone = absl::AnyInvocable<void(RowPtr<Bunker>)>;
  using WaitId = uint64_t;
  // For CancelWait(); 0 where `done` has run already.
  WaitId WaitForBunker(RowPtr<Bunker> last_seen, std::set<BunkerStatus> statuses,
                       absl::Time deadline, BunkerDone done);
  // Forgets a wait: its `done` never runs. One that is over, or 0, is none. On the loop only.
  void CancelWait(WaitId id);
  // Waits under way, by bunkers. On the loop only.
  size_t waits() const { return waiters_.size(); }

  Loop& loop() { return loop_; }

  // Batches made durable so far, and rows in them. Thread-safe.
  uint64_t commits() const { return stats_.commits.value(); }
  uint64_t rows_written() const { return stats_.rows.value(); }
  const CoreStats& stats() const { return stats_; }
  // Whether the last batch that wrote found room. Thread-safe; for readiness.
  bool store_has_room() const { return store_has_room_.load(std::memory_order_relaxed); }

 private:
  struct Waiter {
    std::set<BunkerStatus> statuses;
    RowPtr<Bunker> row;
    Loop::TimerId timer = 0;
    BunkerDone done;
  };
  // A batch on its way to disk, with what it takes to undo it.
  struct InFlight {
    std::unique_ptr<Turn> turn;
    ChangeSet changes;
    size_t rows = 0;
    int64_t began_ns = 0;
  };

  void ScheduleDrain();
  void Drain();
  void Seal();
  void OnCommitted(const absl::Status& status);
  void RollBack(const absl::Status& cause);
  void Release(std::unique_ptr<Turn> turn, const ChangeSet& changes, const absl::Status& status);
  void Tick();
  void PostTick();
  void OnBunkerChanges(const ChangeSet& changes);
  void FinishWaiter(const std::string& bunker_id, WaitId waiter_id);

  Loop& loop_;
  Store& store_;
  Engine& engine_;
  const Options options_;

  Mutex mutex_;
  std::deque<Event> inbox_ ABSL_GUARDED_BY(mutex_);
  bool drain_posted_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t drain_posted_ns_ ABSL_GUARDED_BY(mutex_) = 0;

  CoreStats stats_;
  std::atomic<bool> store_has_room_{true};

  // Owned by the loop.
  std::unique_ptr<Turn> filling_;
  size_t filling_events_ = 0;
  std::unique_ptr<InFlight> in_flight_;
  absl::Time last_now_ = absl::InfinitePast();
  uint64_t sequence_ = 0;
  WatchId next_watch_ = 1;
  std::map<WatchId, Watcher> watchers_;
  WaitId next_waiter_ = 1;
  std::map<std::string, std::map<WaitId, Waiter>> waiters_;  // by bunker
  Loop::TimerId tick_timer_ = 0;
  bool tick_posted_ = false;
  // Callbacks that may outlive the core look here first.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace bunker::controller
