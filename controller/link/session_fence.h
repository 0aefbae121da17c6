// Notices when two agents use one worker's credential: a disk that was cloned, a copied state
// folder. Each run of an agent has an id that never comes back once another one has taken its
// place; if it does, both are alive.
//
// Not thread-safe. Time is a parameter.
#pragma once

#include <deque>
#include <map>
#include <string>

#include "absl/time/time.h"

namespace bunker::controller {

class SessionFence {
 public:
  enum class Verdict {
    kAdmit,
    kQuarantine,   // the alternation was seen just now
    kQuarantined,  // still: neither is let in
  };

  // So long may only one of them have tried for it to be let in again.
  static constexpr absl::Duration kCalm = absl::Seconds(60);

  // `run_id`: the host's boot id and the run's own.
  Verdict OnHello(const std::string& run_id, absl::Time now);

  bool quarantined() const { return quarantined_; }

 private:
  static constexpr size_t kMaxRuns = 16;

  bool AloneSince(const std::string& run_id, absl::Time since) const;

  std::deque<std::string> runs_;  // oldest first; the last one was admitted last
  std::map<std::string, absl::Time> last_try_;  // in quarantine, by run
  bool quarantined_ = false;
};

}  // namespace bunker::controller
