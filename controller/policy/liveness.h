// When a worker counts as offline, and when as lost. Pure.
#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace bunker::controller {

// How long a worker has been silent. Not counted from before the controller's own start: what a
// worker said while nobody listened is not its fault.
inline absl::Duration SilenceOf(absl::Time last_heartbeat, absl::Time controller_start,
                                absl::Time now) {
  const absl::Time since = std::max(last_heartbeat, controller_start);
  return now > since ? now - since : absl::ZeroDuration();
}

enum class Liveness { kAlive, kOffline, kLost };

inline Liveness LivenessOf(absl::Duration silence, absl::Duration offline_after,
                           absl::Duration lost_after) {
  if (silence >= lost_after) return Liveness::kLost;
  return silence >= offline_after ? Liveness::kOffline : Liveness::kAlive;
}

}  // namespace bunker::controller
