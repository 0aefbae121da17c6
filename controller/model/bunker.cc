#include "controller/model/bunker.h"

#include <utility>

#include "common/base/log.h"

namespace bunker::controller {
namespace {

using S = BunkerStatus;

constexpr std::pair<S, S> kLegal[] = {
    {S::kPending, S::kProvisioning}, {S::kPending, S::kStopped},  {S::kPending, S::kFailed},
    {S::kProvisioning, S::kRunning}, {S::kProvisioning, S::kStopping},
    {S::kProvisioning, S::kStopped}, {S::kProvisioning, S::kFailed},
    {S::kRunning, S::kPaused},       {S::kRunning, S::kStopping}, {S::kRunning, S::kStopped},
    {S::kRunning, S::kFailed},       {S::kPaused, S::kRunning},   {S::kPaused, S::kStopping},
    {S::kPaused, S::kStopped},       {S::kPaused, S::kFailed},    {S::kStopping, S::kStopped},
    {S::kStopping, S::kFailed},     {S::kStopped, S::kStopping},
    {S::kStopped, S::kFailed},       {S::kFailed, S::kStopping},
};

}  // namespace

bool CanAdvance(BunkerStatus from, BunkerStatus to) {
  if (from == to) return true;
  for (const auto& [a, b] : kLegal) {
    if (a == from && b == to) return true;
  }
  return false;
}

void Advance(Bunker& bunker, BunkerStatus to, absl::Time now) {
  BUNKER_CHECK(bunker.live());
  BUNKER_CHECK(CanAdvance(bunker.status, to));
  bunker.status = to;
  bunker.updated_at = now;
}

void Terminate(Bunker& bunker, BunkerStatus to, std::string reason, absl::Time now) {
  BUNKER_CHECK(to == BunkerStatus::kStopped || to == BunkerStatus::kFailed);
  Advance(bunker, to, now);
  bunker.status_reason = std::move(reason);
  bunker.terminated_at = now;
}

Resources Bunker::footprint() const {
  if (halted) return {0, 0, disk_mb};
  return {cpu_millicores, memory_mb + kVmOverheadMb, disk_mb};
}

void BeginIncarnation(Bunker& bunker, absl::Time now) {
  BUNKER_CHECK(bunker.live() && !bunker.stop_wanted);
  ++bunker.incarnation;
  bunker.status = BunkerStatus::kProvisioning;
  bunker.goal = BunkerGoal::kRun;
  bunker.halted = false;
  bunker.status_reason.clear();
  bunker.status_message.clear();
  bunker.start_kind.clear();
  bunker.fallback_reason.clear();
  bunker.timings = {};
  if (bunker.main) bunker.main_status = MainStatus();
  bunker.active_execs = 0;
  bunker.stopping_at.reset();
  bunker.started_at.reset();
  bunker.boot_since = now;
  bunker.last_activity_at = bunker.updated_at = now;
}

}  // namespace bunker::controller
