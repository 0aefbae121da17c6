// Waiting between tries: how long, and in a way that a cancel ends.
// Thread-safe: free functions.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace bunker::agent {

using StopFn = std::function<bool()>;

// `first` doubled with every failed try (0 = after the first), at most 30 s, of which a random
// half is taken off, so that many agents that failed together come back apart.
absl::Duration BackoffDelay(absl::Duration first, int failed_tries);

// The value of Retry-After: seconds, or an HTTP date seen from `now`. Negative, past or beyond
// `cap` is cut to [0, cap]; nullopt where it is neither.
std::optional<absl::Duration> ParseRetryAfter(std::string_view value, absl::Time now,
                                              absl::Duration cap);

// CANCELLED as soon as `stop` says so (seen within 50 ms), else OK after `delay`.
absl::Status WaitUnlessStopped(absl::Duration delay, const StopFn& stop);

}  // namespace bunker::agent
