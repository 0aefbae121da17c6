#include "agent/reconcile/snapshot_table.h"

#include <utility>

#include "common/base/log.h"

namespace bunker::agent {
namespace {

using Observed = link::v1::SnapshotObservation;

std::string NameOf(const std::string& snapshot_id) {
  return "snapshots/" + snapshot_id;
}

}  // namespace

void SnapshotTable::Restore(const std::string& snapshot_id, uint64_t size_bytes) {
  Row& row = rows_[snapshot_id];
  row.phase = Phase::kThere;
  row.observed.set_size_bytes(size_bytes);
}

void SnapshotTable::Upsert(const link::v1::SnapshotAssignment& wanted) {
  Row& row = rows_[wanted.snapshot_id()];
  row.wanted = wanted;
  row.is_wanted = true;
  Evaluate(wanted.snapshot_id());
}

void SnapshotTable::Remove(const std::string& snapshot_id) {
  const auto it = rows_.find(snapshot_id);
  if (it == rows_.end()) return;
  it->second.is_wanted = false;
  Evaluate(snapshot_id);
}

void SnapshotTable::Evaluate(const std::string& snapshot_id) {
  const auto it = rows_.find(snapshot_id);
  if (it == rows_.end()) return;
  Row& row = it->second;
  const bool keeps =
      row.is_wanted && row.wanted.desired() != link::v1::SnapshotAssignment::GONE;
  switch (row.phase) {
    case Phase::kTaking:
      if (!keeps) row.take->Cancel();
      return;
    case Phase::kRemoving:
      return;
    case Phase::kThere:
      if (keeps) return Publish(snapshot_id, row, Observed::READY);
      return BeginRemove(snapshot_id, row);
    case Phase::kAbsent:
      return EvaluateAbsent(snapshot_id, row, keeps);
  }
}

void SnapshotTable::EvaluateAbsent(const std::string& snapshot_id, Row& row, bool keeps) {
  if (!row.is_wanted) {
    rows_.erase(snapshot_id);
    sink_.Remove(NameOf(snapshot_id));
    return;
  }
  if (!keeps) return Publish(snapshot_id, row, Observed::GONE);
  if (row.observed.status() == Observed::FAILED) {
    return Publish(snapshot_id, row, Observed::FAILED);
  }
  // Of what there was: another copy would hold something else.
  const bool was_there = row.wanted.expected() || row.observed.status() != 0;
  if (!was_there) return BeginTake(snapshot_id, row);
  row.observed.set_error_code("SNAPSHOT_LOST");
  row.observed.set_error_message(
      "the snapshot's file is not on the worker any more: take another one");
  Publish(snapshot_id, row, Observed::FAILED);
}

void SnapshotTable::BeginTake(const std::string& snapshot_id, Row& row) {
  row.phase = Phase::kTaking;
  row.take = std::make_shared<CancelToken>();
  work_.Take(row.wanted, row.take, [this, snapshot_id](const Observed& result) {
    const auto it = rows_.find(snapshot_id);
    BUNKER_CHECK(it != rows_.end() && it->second.phase == Phase::kTaking);
    Row& taken = it->second;
    taken.take.reset();
    taken.observed = result;
    const bool ready = result.status() == Observed::READY;
    taken.phase = ready ? Phase::kThere : Phase::kAbsent;
    Log(ready ? Severity::kInfo : Severity::kWarning, ready ? "snapshot.taken" : "snapshot.failed",
        {{"snapshot", snapshot_id},
         {"bunker", taken.wanted.bunker_id()},
         {"bytes", result.size_bytes()},
         {"code", result.error_code()},
         {"error", result.error_message()}});
    Evaluate(snapshot_id);
  });
}

void SnapshotTable::BeginRemove(const std::string& snapshot_id, Row& row) {
  row.phase = Phase::kRemoving;
  work_.Remove(snapshot_id, [this, snapshot_id] {
    const auto it = rows_.find(snapshot_id);
    BUNKER_CHECK(it != rows_.end() && it->second.phase == Phase::kRemoving);
    it->second.phase = Phase::kAbsent;
    it->second.observed.set_status(Observed::GONE);
    Log(Severity::kInfo, "snapshot.removed", {{"snapshot", snapshot_id}});
    Evaluate(snapshot_id);
  });
}

void SnapshotTable::Publish(const std::string& snapshot_id, Row& row, Observed::Status status) {
  row.observed.set_snapshot_id(snapshot_id);
  row.observed.set_status(status);
  if (status != Observed::READY) row.observed.clear_size_bytes();
  link::v1::Observation observation;
  observation.set_name(NameOf(snapshot_id));
  *observation.mutable_snapshot() = row.observed;
  sink_.Upsert(observation);
}

}  // namespace bunker::agent
