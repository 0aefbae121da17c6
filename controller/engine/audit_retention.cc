#include "controller/engine/audit_retention.h"

#include <algorithm>
#include <string>
#include <utility>

#include "common/base/log.h"
#include "controller/engine/audit_log.h"

namespace bunker::controller {

AuditRetention::~AuditRetention() {
  *alive_ = false;
  if (timer_ != 0) core_.loop().CancelTimer(timer_);
}

void AuditRetention::Start() {
  if (options_.keep < absl::InfiniteDuration()) Pass();
}

void AuditRetention::ArmNext(absl::Duration after) {
  timer_ = core_.loop().AddTimer(after, [this] { Pass(); });
}

void AuditRetention::Pass() {
  timer_ = 0;
  AuditQuery query;
  query.oldest_first = true;
  query.limit = options_.rows_at_a_time;
  reader_.Read(query, [this, core = &core_, alive = alive_](absl::StatusOr<AuditPage> page) {
    core->Post([this, alive, page = std::move(page)](Engine&, Turn& turn) {
      turn.AfterCommit([this, alive, page](const absl::Status&) {
        if (!*alive) return;
        if (!page.ok()) {
          Log(Severity::kWarning, "audit.retention_failed", {{"error", page.status().ToString()}});
          return ArmNext(options_.period);
        }
        Remove(*page);
      });
    });
  });
}

void AuditRetention::Remove(const AuditPage& page) {
  const absl::Time before = core_.loop().Now() - options_.keep;
  uint64_t first = 0;
  uint64_t last = 0;
  for (const AuditRecord& record : page.records) {
    // What can't be read is left, and so is all behind it: it has to be seen, not to go unnoticed.
    if (!record.intact || absl::FromUnixMillis(record.entry.at_unix_ms) >= before) break;
    if (first == 0) first = record.entry.seq;
    last = record.entry.seq;
  }
  // The newest row stays: what comes after it is chained to it.
  core_.Post([this, alive = alive_, first, last](Engine& engine, Turn& turn) {
    const uint64_t end = std::min(last, engine.audit().head().seq - 1);
    const bool removes = first != 0 && first <= end;
    if (removes) {
      AuditEntry entry;
      entry.actor = "controller";
      entry.action = "Audit.Forget";
      entry.target = std::to_string(end);
      entry.detail = "from=" + std::to_string(first);
      entry.outcome = "ok";
      engine.audit().Append(turn, std::move(entry));
      engine.audit().Forget(turn, first, end);
    }
    turn.AfterCommit([this, alive, removes](const absl::Status& committed) {
      if (!*alive) return;
      ArmNext(removes && committed.ok() ? absl::Milliseconds(100) : options_.period);
    });
  });
}

}  // namespace bunker::controller
