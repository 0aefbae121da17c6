#include "agent/reconcile/bunker_table.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/proc/deadline.h"

namespace bunker::agent {
namespace {

using Observed = link::v1::BunkerObservation;

std::string NameOf(const std::string& bunker_id) {
  return "bunkers/" + bunker_id;
}

bool IsFinal(const Observed& observed) {
  return observed.status() == Observed::STOPPED || observed.status() == Observed::FAILED;
}

}  // namespace

void BunkerTable::Restore(const link::v1::BunkerAssignment& wanted, const Observed& observed,
                          const std::string& recipe_digest) {
  Row& row = rows_[wanted.bunker_id()];
  row.wanted = wanted;
  row.is_wanted = true;
  row.observed = observed;
  row.phase = IsFinal(observed) ? Phase::kAbsent : Phase::kRunning;
  row.has_disk = wanted.keep_disk();
  row.pause_known = observed.status() != Observed::PAUSED;
  row.recipe_digest = recipe_digest;
  Publish(row);
}

void BunkerTable::Upsert(const link::v1::BunkerAssignment& wanted) {
  Row& row = rows_[wanted.bunker_id()];
  row.wanted = wanted;
  row.is_wanted = true;
  row.has_disk = row.has_disk || wanted.keep_disk();
  Evaluate(wanted.bunker_id());
}

void BunkerTable::Remove(const std::string& bunker_id) {
  const auto it = rows_.find(bunker_id);
  if (it == rows_.end()) return;
  it->second.is_wanted = false;
  Evaluate(bunker_id);
}

void BunkerTable::Evaluate(const std::string& bunker_id) {
  const auto it = rows_.find(bunker_id);
  if (it == rows_.end()) return;
  Row& row = it->second;
  const bool wants_this =
      row.is_wanted && row.wanted.desired() != link::v1::BunkerAssignment::STOPPED &&
      (row.phase == Phase::kAbsent || row.wanted.incarnation() == row.observed.incarnation());
  switch (row.phase) {
    case Phase::kStarting:
      if (!wants_this) row.start->Cancel();
      return;
    case Phase::kRunning: {
      if (row.pause_known && BeginCopy(row)) return;
      if (!wants_this) return BeginStop(row);
      const bool paused = row.wanted.desired() == link::v1::BunkerAssignment::PAUSED;
      if (!row.pause_known || paused != (row.observed.status() == Observed::PAUSED))
        BeginSwitch(row, paused);
      return;
    }
    case Phase::kSwitching:
    case Phase::kCopying:
    case Phase::kStopping:
      return;
    case Phase::kAbsent:
      EvaluateAbsent(bunker_id, row);
      return;
  }
}

void BunkerTable::EvaluateAbsent(const std::string& bunker_id, Row& row) {
  if (row.has_disk && BeginCopy(row)) return;
  RefuseCopies(row);
  const bool is_over = row.wanted.desired() == link::v1::BunkerAssignment::STOPPED;
  const bool drops_disk = !row.is_wanted || (is_over && !row.wanted.keep_disk());
  if (row.has_disk && drops_disk) return BeginStop(row);
  if (!row.is_wanted) {
    work_.Forget(bunker_id, row.observed.incarnation());
    rows_.erase(bunker_id);
    sink_.Remove(NameOf(bunker_id));
    return;
  }
  if (row.observed.incarnation() != row.wanted.incarnation()) {
    if (row.observed.incarnation() != 0) work_.Forget(bunker_id, row.observed.incarnation());
    row.observed.Clear();
    row.observed.set_bunker_id(bunker_id);
    row.observed.set_incarnation(row.wanted.incarnation());
    row.wanted_at = MonotonicTime();
  }
  if (IsFinal(row.observed)) return;
  if (is_over) {
    Observe(row, Observed::STOPPED, row.observed.status_reason());
    return;
  }
  const std::string recipe = images_.ReadyRecipe(row.wanted.image_id());
  if (!recipe.empty()) {
    BeginStart(row, recipe);
    return;
  }
  if (const link::v1::ImageObservation* failure = images_.Failure(row.wanted.image_id())) {
    Observe(row, Observed::FAILED,
            "image " + failure->error_code() + ": " + failure->error_message());
    return;
  }
  if (row.observed.status() != Observed::PROVISIONING) Observe(row, Observed::PROVISIONING, "");
}

void BunkerTable::BeginStart(Row& row, const std::string& recipe_digest) {
  row.phase = Phase::kStarting;
  row.recipe_digest = recipe_digest;
  row.start = std::make_shared<CancelToken>();
  if (row.observed.status() != Observed::PROVISIONING) Observe(row, Observed::PROVISIONING, "");
  const std::string bunker_id = row.wanted.bunker_id();
  images_.Touch(row.wanted.image_id(), absl::ToUnixMillis(absl::Now()));
  const double fetch_ms = absl::ToDoubleMilliseconds(MonotonicTime() - row.wanted_at);
  work_.Start(row.wanted, recipe_digest, row.start,
              [this, bunker_id, fetch_ms](const Observed& result) {
                const auto it = rows_.find(bunker_id);
                BUNKER_CHECK(it != rows_.end() && it->second.phase == Phase::kStarting);
                Row& started = it->second;
                const bool running = result.status() == Observed::RUNNING;
                started.pause_known = true;
                started.phase = running ? Phase::kRunning : Phase::kAbsent;
                started.start.reset();
                started.observed = result;
                started.observed.mutable_timings()->set_fetch_ms(fetch_ms);
                Log(running ? Severity::kInfo : Severity::kWarning, "bunker.start",
                    {{"bunker", bunker_id},
                     {"incarnation", result.incarnation()},
                     {"to", Observed::Status_Name(result.status())},
                     {"reason", result.status_reason()}});
                Publish(started);
                if (!running) images_.EvictIfUnwanted(started.recipe_digest);
                Evaluate(bunker_id);
              });
}

void BunkerTable::BeginStop(Row& row) {
  row.phase = Phase::kStopping;
  // A row that never had a VM may have to lose its disk.
  const std::string bunker_id = row.wanted.bunker_id();
  row.observed.set_bunker_id(bunker_id);
  if (row.observed.incarnation() == 0) row.observed.set_incarnation(row.wanted.incarnation());
  if (!IsFinal(row.observed)) Observe(row, Observed::STOPPING, row.observed.status_reason());
  const bool keep_disk = row.is_wanted && row.wanted.keep_disk();
  work_.Stop(bunker_id, row.observed.incarnation(), keep_disk, [this, bunker_id, keep_disk] {
    const auto it = rows_.find(bunker_id);
    BUNKER_CHECK(it != rows_.end() && it->second.phase == Phase::kStopping);
    Row& stopped = it->second;
    stopped.phase = Phase::kAbsent;
    const bool was_kept = stopped.has_disk;
    stopped.has_disk = was_kept && keep_disk;
    if (!IsFinal(stopped.observed)) {
      Observe(stopped, Observed::STOPPED, "");
    } else if (was_kept != stopped.has_disk) {
      Publish(stopped);
    }
    const std::string recipe = std::exchange(stopped.recipe_digest, "");
    images_.Touch(stopped.wanted.image_id(), absl::ToUnixMillis(absl::Now()));
    Evaluate(bunker_id);
    images_.EvictIfUnwanted(recipe);
  });
}

void BunkerTable::BeginSwitch(Row& row, bool paused) {
  row.phase = Phase::kSwitching;
  work_.SetPaused(row.wanted.bunker_id(), row.observed.incarnation(), paused,
                  [this, bunker_id = row.wanted.bunker_id(), paused](const absl::Status& status) {
                    AfterSwitch(bunker_id, paused, status);
                  });
}

void BunkerTable::AfterSwitch(const std::string& bunker_id, bool paused,
                              const absl::Status& status) {
  const auto it = rows_.find(bunker_id);
  BUNKER_CHECK(it != rows_.end() && it->second.phase == Phase::kSwitching);
  Row& row = it->second;
  if (status.ok() || row.exit) {
    row.phase = Phase::kRunning;
    row.pause_known = true;
    if (row.exit) return EndedByItself(row, *std::exchange(row.exit, std::nullopt));
    Observe(row, paused ? Observed::PAUSED : Observed::RUNNING, "");
    Evaluate(bunker_id);
    return;
  }
  Log(Severity::kWarning, "bunker.switch_failed",
      {{"bunker", bunker_id}, {"paused", paused}, {"error", std::string(status.message())}});
  row.pause_known = false;
  // The phase stays, so that nothing else begins; the row is looked at again, as it then is.
  work_.Later([this, bunker_id] {
    const auto again = rows_.find(bunker_id);
    if (again == rows_.end() || again->second.phase != Phase::kSwitching) return;
    Row& waiting = again->second;
    waiting.phase = Phase::kRunning;
    if (waiting.exit) return EndedByItself(waiting, *std::exchange(waiting.exit, std::nullopt));
    Evaluate(bunker_id);
  });
}

void BunkerTable::CopyDisk(const std::string& bunker_id, BunkerWork::Copy wanted,
                           std::shared_ptr<CancelToken> cancel, BunkerWork::OnCopied on_copied) {
  const auto it = rows_.find(bunker_id);
  Row nobody;
  Row& row = it == rows_.end() ? nobody : it->second;
  row.copies.push_back({std::move(wanted), std::move(cancel), std::move(on_copied)});
  if (it == rows_.end()) return RefuseCopies(row);
  Evaluate(bunker_id);
}

bool BunkerTable::BeginCopy(Row& row) {
  if (row.copies.empty()) return false;
  row.beneath = std::exchange(row.phase, Phase::kCopying);
  const Copy copy = std::move(row.copies.front());
  row.copies.pop_front();
  const std::string bunker_id = row.wanted.bunker_id();
  work_.CopyDisk(bunker_id, copy.wanted, copy.cancel,
                 [this, bunker_id, done = copy.done](const BunkerWork::Copied& copied) {
                   done(copied);
                   AfterCopy(bunker_id, copied.is_vm_as_before);
                 });
  return true;
}

void BunkerTable::AfterCopy(const std::string& bunker_id, bool is_vm_as_before) {
  const auto it = rows_.find(bunker_id);
  BUNKER_CHECK(it != rows_.end() && it->second.phase == Phase::kCopying);
  Row& row = it->second;
  row.phase = row.beneath;
  if (!is_vm_as_before) row.pause_known = false;
  if (row.exit) return EndedByItself(row, *std::exchange(row.exit, std::nullopt));
  Evaluate(bunker_id);
}

void BunkerTable::RefuseCopies(Row& row) {
  for (const Copy& copy : std::exchange(row.copies, {})) {
    copy.done({ReasonError(absl::StatusCode::kFailedPrecondition, "BUNKER_NOT_RUNNING",
                           "the bunker has ended, and its disk with it: to have both, delete it "
                           "with snapshot=true")});
  }
}

bool BunkerTable::Uses(const std::string& recipe_digest) const {
  for (const auto& [id, row] : rows_) {
    if (row.phase != Phase::kAbsent && row.recipe_digest == recipe_digest) return true;
  }
  return false;
}

void BunkerTable::OnImageChange(const std::string& image_id) {
  std::vector<std::string> waiting;
  for (const auto& [id, row] : rows_) {
    if (row.phase == Phase::kAbsent && row.wanted.image_id() == image_id) waiting.push_back(id);
  }
  for (const std::string& id : waiting) Evaluate(id);
}

bool BunkerTable::IsUp(const Row& row) {
  return row.phase == Phase::kRunning || row.phase == Phase::kSwitching ||
         (row.phase == Phase::kCopying && row.beneath == Phase::kRunning);
}

BunkerTable::Row* BunkerTable::FindRunning(const std::string& bunker_id, uint32_t incarnation) {
  const auto it = rows_.find(bunker_id);
  const bool there = it != rows_.end() &&
                     IsUp(it->second) &&
                     it->second.observed.incarnation() == incarnation;
  return there ? &it->second : nullptr;
}

void BunkerTable::OnExit(const std::string& bunker_id, uint32_t incarnation, bool clean,
                         const std::string& reason) {
  Row* row = FindRunning(bunker_id, incarnation);
  if (row == nullptr) return;
  if (row->phase != Phase::kRunning) {
    row->exit = Exit{clean, reason};
    return;
  }
  EndedByItself(*row, {clean, reason});
}

void BunkerTable::EndedByItself(Row& row, const Exit& exit) {
  Observe(row, exit.clean ? Observed::STOPPED : Observed::FAILED, exit.reason);
  BeginStop(row);
}

void BunkerTable::OnActivity(const std::string& bunker_id, uint32_t incarnation,
                             uint32_t active_execs, int64_t at_unix_ms) {
  Row* row = FindRunning(bunker_id, incarnation);
  if (row == nullptr) return;
  row->observed.set_active_execs(active_execs);
  row->observed.set_last_activity_unix_ms(at_unix_ms);
  Publish(*row);
}

void BunkerTable::OnNetwork(const std::string& bunker_id, uint32_t incarnation,
                            const std::vector<link::v1::NetworkEvent>& events) {
  Row* row = FindRunning(bunker_id, incarnation);
  if (row == nullptr) return;
  const auto& old = row->observed.network_events();
  const bool same = std::equal(old.begin(), old.end(), events.begin(), events.end(),
                               [](const auto& a, const auto& b) {
                                 return a.SerializeAsString() == b.SerializeAsString();
                               });
  if (same) return;
  row->observed.mutable_network_events()->Assign(events.begin(), events.end());
  Publish(*row);
}

void BunkerTable::OnUsage(const std::string& bunker_id, uint32_t incarnation,
                          const link::v1::Usage& usage) {
  Row* row = FindRunning(bunker_id, incarnation);
  if (row == nullptr) return;
  *row->observed.mutable_usage() = usage;
  Publish(*row);
}

void BunkerTable::OnMain(const std::string& bunker_id, uint32_t incarnation,
                         const link::v1::MainState& state) {
  Row* row = FindRunning(bunker_id, incarnation);
  if (row == nullptr) return;
  *row->observed.mutable_main() = state;
  Publish(*row);
}

void BunkerTable::OnFirstExec(const std::string& bunker_id, uint32_t incarnation, double ms) {
  Row* row = FindRunning(bunker_id, incarnation);
  if (row == nullptr) return;
  row->observed.mutable_timings()->set_first_exec_ms(ms);
  Publish(*row);
}

void BunkerTable::Observe(Row& row, Observed::Status status, const std::string& reason) {
  Log(Severity::kInfo, "bunker.state",
      {{"bunker", row.wanted.bunker_id()},
       {"incarnation", row.observed.incarnation()},
       {"from", Observed::Status_Name(row.observed.status())},
       {"to", Observed::Status_Name(status)},
       {"reason", reason}});
  row.observed.set_status(status);
  row.observed.set_status_reason(reason);
  Publish(row);
}

void BunkerTable::Publish(const Row& row) {
  link::v1::Observation observation;
  observation.set_name(NameOf(row.observed.bunker_id()));
  *observation.mutable_bunker() = row.observed;
  observation.mutable_bunker()->set_disk_kept(IsFinal(row.observed) && row.has_disk);
  sink_.Upsert(observation);
}

}  // namespace bunker::agent
