// One batch of events in the making: their moment, what they wrote, and what may be told once it
// is durable.
//
// Lives on the core's loop; valid only during the call that got it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "controller/engine/change_set.h"
#include "controller/store/store.h"

namespace bunker::controller {

// A table that can take a change back. See table.h.
class UndoableTable {
 public:
  virtual ~UndoableTable() = default;
  virtual void Restore(const std::string& id, const std::shared_ptr<const void>& before) = 0;
  virtual std::shared_ptr<const void> Current(const std::string& id) const = 0;
  // Adds the write of the row's present form to `batch` (nothing for tables that aren't stored),
  // and the change to `changes`.
  virtual void Report(const std::string& id, const std::shared_ptr<const void>& before,
                      Batch& batch, ChangeSet& changes) const = 0;
};

class Turn {
 public:
  // OK, or UNAVAILABLE: the store had no room, and nothing of this turn happened. A session that
  // gets that for observations or a hello must end: what the agent sent is not held.
  using Output = absl::AnyInvocable<void(const absl::Status&)>;

  explicit Turn(absl::Time now) : now_(now) {}
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

  // The wall clock when this event began. Never goes back within a process.
  absl::Time now() const { return now_; }
  void set_now(absl::Time now) { now_ = now; }

  // Runs `output` on the loop once everything that was written up to now (by this turn and all
  // before it) is durable: replies, reads included, leave through here alone. Outputs run in the
  // order of their adding, before the watchers. One that is dropped by a rollback never runs.
  void AfterCommit(Output output) { outputs_.push_back(std::move(output)); }

  // A point to return to: RollbackTo() takes back every write made since. Outputs stay.
  size_t Savepoint() const { return log_.size(); }
  void RollbackTo(size_t savepoint);

  // For tables: `id` is about to change from `before`.
  void NoteWrite(UndoableTable* table, const std::string& id, std::shared_ptr<const void> before) {
    log_.push_back({table, id, std::move(before)});
  }

  // ---- for the core ---------------------------------------------------------------------------
  bool empty() const { return log_.empty() && outputs_.empty(); }
  bool wrote() const { return !log_.empty(); }
  // Net writes and changes of the whole batch; each row once.
  void Collect(Batch& batch, ChangeSet& changes) const;
  std::vector<Output> TakeOutputs() { return std::move(outputs_); }

 private:
  struct LogEntry {
    UndoableTable* table;
    std::string id;
    std::shared_ptr<const void> before;
  };

  absl::Time now_;
  std::vector<LogEntry> log_;
  std::vector<Output> outputs_;
};

}  // namespace bunker::controller
