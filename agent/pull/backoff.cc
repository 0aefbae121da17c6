#include "agent/pull/backoff.h"

#include <algorithm>
#include <cctype>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "common/base/converters.h"
#include "common/base/reason.h"
#include "common/base/rng.h"

namespace bunker::agent {
namespace {
constexpr absl::Duration kMaxBackoff = absl::Seconds(30);
constexpr absl::Duration kStopPoll = absl::Milliseconds(50);

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}
}  // namespace

absl::Duration BackoffDelay(absl::Duration first, int failed_tries) {
  const absl::Duration whole =
      std::min(first * static_cast<int64_t>(1u << std::clamp(failed_tries, 0, 16)), kMaxBackoff);
  SystemRng rng;
  return whole / 2 + whole / 2 * (static_cast<double>(rng.Below(1001)) / 1000.0);
}

std::optional<absl::Duration> ParseRetryAfter(std::string_view value, absl::Time now,
                                              absl::Duration cap) {
  value = Trimmed(value);
  if (value.empty()) return std::nullopt;
  const bool negative = value.front() == '-';
  const std::string_view digits = negative ? value.substr(1) : value;
  const bool number = !digits.empty() && std::all_of(digits.begin(), digits.end(),
                                                     [](char c) { return c >= '0' && c <= '9'; });
  if (number) {
    if (negative) return absl::ZeroDuration();
    int64_t seconds = 0;
    if (!absl::SimpleAtoi(ToAbsl(digits), &seconds)) return cap;  // beyond 64 bits
    return seconds > absl::ToInt64Seconds(cap) ? cap : absl::Seconds(seconds);
  }
  // The three date forms of HTTP: the current one and two old ones.
  for (const char* format :
       {"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"}) {
    absl::Time time;
    std::string error;
    if (absl::ParseTime(format, ToAbsl(value), &time, &error))
      return std::clamp(time - now, absl::ZeroDuration(), cap);
  }
  return std::nullopt;
}

absl::Status WaitUnlessStopped(absl::Duration delay, const StopFn& stop) {
  const absl::Time end = absl::Now() + delay;
  for (;;) {
    if (stop && stop()) {
      return ReasonError(absl::StatusCode::kCancelled, "CANCELLED",
                         "the pull was cancelled because its result is no longer wanted");
    }
    const absl::Duration left = end - absl::Now();
    if (left <= absl::ZeroDuration()) return absl::OkStatus();
    absl::SleepFor(std::min(left, kStopPoll));  // a timed wait for the clock itself
  }
}

}  // namespace bunker::agent
