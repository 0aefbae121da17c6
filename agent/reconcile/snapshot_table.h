// Desired and actual snapshots on this worker.
//
// One row per snapshot id. A copy is made once: READY and FAILED are final, and a file that was
// made is never made again. Nothing is journalled but the assignment: the file, which appears whole
// or not at all, says the rest to the next agent.
//
// Not thread-safe: every call, callbacks included, comes from the agent's loop.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "agent/reconcile/image_table.h"
#include "bunker/link/v1/agent_link.pb.h"
#include "common/base/cancel.h"

namespace bunker::agent {

// The slow side of snapshots. Callbacks run on the loop, exactly once, and never before the call
// that was given them has returned.
class SnapshotWork {
 public:
  virtual ~SnapshotWork() = default;
  // READY with its size, or FAILED with nothing of it left.
  using OnTaken = std::function<void(const link::v1::SnapshotObservation&)>;
  virtual void Take(const link::v1::SnapshotAssignment& wanted, std::shared_ptr<CancelToken> cancel,
                    OnTaken on_taken) = 0;
  // The file is gone, however often that had to be tried.
  using OnRemoved = std::function<void()>;
  virtual void Remove(const std::string& snapshot_id, OnRemoved on_removed) = 0;
};

class SnapshotTable {
 public:
  // Both must outlive the table.
  SnapshotTable(SnapshotWork& work, ObservationSink& sink) : work_(work), sink_(sink) {}

  // A file that an earlier agent made. To be called before the first Upsert.
  void Restore(const std::string& snapshot_id, uint64_t size_bytes);

  void Upsert(const link::v1::SnapshotAssignment& wanted);
  // What is not wanted any more is removed.
  void Remove(const std::string& snapshot_id);

 private:
  enum class Phase { kAbsent, kTaking, kThere, kRemoving };  // what is on the host
  struct Row {
    link::v1::SnapshotAssignment wanted;
    link::v1::SnapshotObservation observed;
    bool is_wanted = false;
    Phase phase = Phase::kAbsent;
    std::shared_ptr<CancelToken> take;
  };

  void Evaluate(const std::string& snapshot_id);
  void EvaluateAbsent(const std::string& snapshot_id, Row& row, bool keeps);
  void BeginTake(const std::string& snapshot_id, Row& row);
  void BeginRemove(const std::string& snapshot_id, Row& row);
  void Publish(const std::string& snapshot_id, Row& row,
               link::v1::SnapshotObservation::Status status);

  SnapshotWork& work_;
  ObservationSink& sink_;
  std::map<std::string, Row> rows_;
};

}  // namespace bunker::agent
