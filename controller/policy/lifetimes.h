// How long a bunker may live, by its lifecycle mode. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/time/time.h"
#include "controller/model/bunker.h"

namespace bunker::controller {

// 0: none.
struct LifetimeDefaults {
  uint64_t max_lifetime_s = 0;
  uint64_t idle_timeout_s = 0;
};

constexpr LifetimeDefaults DefaultsOf(LifecycleMode mode) {
  switch (mode) {
    case LifecycleMode::kEphemeral: return {3600, 600};
    case LifecycleMode::kSession: return {24 * 3600, 3600};
    case LifecycleMode::kPersistent: return {0, 0};
  }
  return {};
}

// Why a live bunker is over now: "MAX_LIFETIME" or "IDLE_TIMEOUT"; "" where it goes on. It idles
// only while it runs, from the later of its start and `last_activity`; `busy`: an exec is open.
std::string_view ExpiryOf(const Bunker& bunker, absl::Time last_activity, bool busy,
                          absl::Time now);

// The first moment after `now` at which ExpiryOf() may say something, should nothing happen until
// then; InfiniteFuture where it never does. REQUIRES: ExpiryOf() is "" now.
absl::Time NextExpiry(const Bunker& bunker, absl::Time last_activity, bool busy, absl::Time now);

// How long to wait before attempt number `failures` + 1 of a bake: doubles from `base` up to `max`.
absl::Duration BackOff(uint32_t failures, absl::Duration base, absl::Duration max);

}  // namespace bunker::controller
