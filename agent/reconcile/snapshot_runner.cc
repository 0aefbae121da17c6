#include "agent/reconcile/snapshot_runner.h"

#include <algorithm>
#include <utility>

#include "agent/reconcile/snapshot_job.h"
#include "common/base/log.h"
#include "common/base/reason.h"

namespace bunker::agent {
namespace {

constexpr size_t kMaxErrorBytes = 2048;
constexpr absl::Duration kRetryPause = absl::Seconds(1);

link::v1::SnapshotObservation ResultOf(const std::string& snapshot_id,
                                       const BunkerWork::Copied& copied) {
  link::v1::SnapshotObservation result;
  result.set_snapshot_id(snapshot_id);
  if (copied.status.ok()) {
    result.set_status(link::v1::SnapshotObservation::READY);
    result.set_size_bytes(copied.size_bytes);
    return result;
  }
  const std::string reason = ReasonOf(copied.status);
  result.set_status(link::v1::SnapshotObservation::FAILED);
  result.set_error_code(reason.empty() ? "INTERNAL" : reason);
  std::string message(copied.status.message());
  if (reason == "DISK_FULL") message += ": free some room on the worker";
  message.resize(std::min(message.size(), kMaxErrorBytes));
  result.set_error_message(std::move(message));
  return result;
}

}  // namespace

void SnapshotRunner::Take(const link::v1::SnapshotAssignment& wanted,
                          std::shared_ptr<CancelToken> cancel, OnTaken on_taken) {
  bunkers_.CopyDisk(
      wanted.bunker_id(), {wanted.snapshot_id(), wanted.memory()}, std::move(cancel),
      [this, id = wanted.snapshot_id(), on_taken](const BunkerWork::Copied& copied) {
        loop_.Post([on_taken, result = ResultOf(id, copied)] { on_taken(result); });
      });
}

// Again and again: its row may not go before it.
void SnapshotRunner::Remove(const std::string& snapshot_id, OnRemoved on_removed) {
  auto again = [this, snapshot_id, on_removed] {
    loop_.AddTimer(kRetryPause, [=, this] { Remove(snapshot_id, on_removed); });
  };
  auto job = [this, snapshot_id, on_removed, again](CancelToken&) {
    const absl::Status removed = RemoveSnapshot(snapshot_dir_, snapshot_id);
    if (!removed.ok())
      Log(Severity::kWarning, "snapshot.not_removed",
          {{"snapshot", snapshot_id}, {"error", std::string(removed.message())}});
    loop_.Post([on_removed, again, removed] { removed.ok() ? on_removed() : again(); });
  };
  if (!pool_.Submit(std::move(job)).ok()) again();
}

}  // namespace bunker::agent
