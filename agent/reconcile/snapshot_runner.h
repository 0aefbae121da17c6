// SnapshotWork for real: the bunkers' own table finds the moment for a copy; files go on a pool.
//
// On the loop only, but for what it does on the pool by itself.
#pragma once

#include <memory>
#include <string>

#include "agent/reconcile/bunker_table.h"
#include "agent/reconcile/snapshot_table.h"
#include "common/loop/event_loop.h"
#include "common/loop/worker_pool.h"

namespace bunker::agent {

class SnapshotRunner final : public SnapshotWork {
 public:
  // All must outlive the runner; `pool` must be shut down before the loop goes.
  SnapshotRunner(Loop& loop, WorkerPool& pool, BunkerTable& bunkers, std::string snapshot_dir)
      : loop_(loop), pool_(pool), bunkers_(bunkers), snapshot_dir_(std::move(snapshot_dir)) {}

  void Take(const link::v1::SnapshotAssignment& wanted, std::shared_ptr<CancelToken> cancel,
            OnTaken on_taken) override;
  void Remove(const std::string& snapshot_id, OnRemoved on_removed) override;

 private:
  Loop& loop_;
  WorkerPool& pool_;
  BunkerTable& bunkers_;
  const std::string snapshot_dir_;
};

}  // namespace bunker::agent
