#include "controller/policy/lifetimes.h"

#include <algorithm>

namespace bunker::controller {
namespace {

// One that is on its way to a pause or a stop idles no more.
bool MayIdle(const Bunker& bunker) {
  return bunker.status == BunkerStatus::kRunning && bunker.goal == BunkerGoal::kRun &&
         bunker.idle_timeout_s != 0;
}

}  // namespace

std::string_view ExpiryOf(const Bunker& bunker, absl::Time last_activity, bool busy,
                          absl::Time now) {
  if (bunker.expires_at && now >= *bunker.expires_at) return "MAX_LIFETIME";
  if (!MayIdle(bunker) || busy) return "";
  const absl::Time since =
      std::max(last_activity, bunker.started_at.value_or(bunker.created_at));
  if (now - since >= absl::Seconds(bunker.idle_timeout_s)) return "IDLE_TIMEOUT";
  return "";
}

absl::Time NextExpiry(const Bunker& bunker, absl::Time last_activity, bool busy, absl::Time now) {
  absl::Time next = bunker.expires_at.value_or(absl::InfiniteFuture());
  if (!MayIdle(bunker)) return next;
  // Idle time counts from the end of what runs now, which is later than `now`.
  const absl::Time since =
      busy ? now : std::max(last_activity, bunker.started_at.value_or(bunker.created_at));
  return std::min(next, since + absl::Seconds(bunker.idle_timeout_s));
}

absl::Duration BackOff(uint32_t failures, absl::Duration base, absl::Duration max) {
  absl::Duration wait = base;
  for (uint32_t i = 1; i < failures && wait < max; ++i) wait *= 2;
  return std::min(wait, max);
}

}  // namespace bunker::controller
