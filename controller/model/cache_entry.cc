#include "controller/model/cache_entry.h"

#include "common/base/log.h"

namespace bunker::controller {
namespace {

constexpr std::pair<CacheStatus, CacheStatus> kLegal[] = {
    {CacheStatus::kPending, CacheStatus::kBuilding},
    {CacheStatus::kPending, CacheStatus::kReady},  // the worker had it already
    {CacheStatus::kPending, CacheStatus::kFailed},
    {CacheStatus::kPending, CacheStatus::kEvicted},
    {CacheStatus::kBuilding, CacheStatus::kPending},  // the agent restarted, or queued it again
    {CacheStatus::kBuilding, CacheStatus::kReady},
    {CacheStatus::kBuilding, CacheStatus::kFailed},
    {CacheStatus::kBuilding, CacheStatus::kEvicted},
    {CacheStatus::kReady, CacheStatus::kPending},   // the file was lost; a new attempt
    {CacheStatus::kReady, CacheStatus::kBuilding},  // the agent checks or makes it again
    {CacheStatus::kReady, CacheStatus::kFailed},   // the file went bad
    {CacheStatus::kReady, CacheStatus::kEvicted},
    {CacheStatus::kFailed, CacheStatus::kPending},   // retry
    {CacheStatus::kFailed, CacheStatus::kBuilding},  // the agent's own retry
    {CacheStatus::kFailed, CacheStatus::kReady},
    {CacheStatus::kFailed, CacheStatus::kEvicted},
    {CacheStatus::kEvicted, CacheStatus::kPending},  // wanted again
};

}  // namespace

bool CanAdvance(CacheStatus from, CacheStatus to) {
  if (from == to) return true;
  for (const auto& [a, b] : kLegal) {
    if (a == from && b == to) return true;
  }
  return false;
}

void Advance(CacheEntry& entry, CacheStatus to, absl::Time now) {
  BUNKER_CHECK(CanAdvance(entry.status, to));
  entry.status = to;
  entry.updated_at = now;
}

void ForgetProgress(CacheEntry& entry) {
  entry.retry_at.reset();
  entry.stage.clear();
  entry.bytes_done = 0;
  entry.bytes_total = 0;
  entry.rate_bytes_per_s = 0;
  entry.error_code.clear();
  entry.error_message.clear();
  entry.retryable = false;
}

std::optional<double> CacheEntry::eta_s() const {
  if (status != CacheStatus::kBuilding || rate_bytes_per_s == 0 || bytes_total == 0) {
    return std::nullopt;
  }
  const uint64_t left = bytes_total > bytes_done ? bytes_total - bytes_done : 0;
  return static_cast<double>(left) / static_cast<double>(rate_bytes_per_s);
}

}  // namespace bunker::controller
