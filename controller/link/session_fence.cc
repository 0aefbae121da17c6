#include "controller/link/session_fence.h"

#include <algorithm>

namespace bunker::controller {

SessionFence::Verdict SessionFence::OnHello(const std::string& run_id, absl::Time now) {
  if (quarantined_) {
    last_try_[run_id] = now;
    if (!AloneSince(run_id, now - kCalm)) return Verdict::kQuarantined;
    quarantined_ = false;
    last_try_.clear();
    runs_.assign(1, run_id);
    return Verdict::kAdmit;
  }
  if (!runs_.empty() && runs_.back() == run_id) return Verdict::kAdmit;
  if (std::find(runs_.begin(), runs_.end(), run_id) != runs_.end()) {
    quarantined_ = true;
    last_try_ = {{runs_.back(), now}, {run_id, now}};
    return Verdict::kQuarantine;
  }
  runs_.push_back(run_id);
  if (runs_.size() > kMaxRuns) runs_.pop_front();
  return Verdict::kAdmit;
}

bool SessionFence::AloneSince(const std::string& run_id, absl::Time since) const {
  for (const auto& [run, tried_at] : last_try_) {
    if (run != run_id && tried_at > since) return false;
  }
  return true;
}

}  // namespace bunker::controller
