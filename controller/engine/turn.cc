#include "controller/engine/turn.h"

#include <set>
#include <utility>

#include "common/base/log.h"

namespace bunker::controller {

void Turn::RollbackTo(size_t savepoint) {
  BUNKER_CHECK(savepoint <= log_.size());
  while (log_.size() > savepoint) {
    LogEntry& last = log_.back();
    last.table->Restore(last.id, last.before);
    log_.pop_back();
  }
}

void Turn::Collect(Batch& batch, ChangeSet& changes) const {
  std::set<std::pair<const UndoableTable*, std::string>> seen;
  for (const LogEntry& entry : log_) {
    // The first entry of a row holds what it was before the batch.
    if (seen.insert({entry.table, entry.id}).second) {
      entry.table->Report(entry.id, entry.before, batch, changes);
    }
  }
}

}  // namespace bunker::controller
