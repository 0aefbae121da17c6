// A store in memory, for tests: commits when it is told to, and fails where it is told to.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <utility>

#include "common/base/mutex.h"
#include "controller/store/store.h"

namespace bunker::controller {

// Thread-safe.
class MemStore final : public Store {
 public:
  using Rows = std::map<std::pair<Noun, std::string>, std::string>;

  // With `manual`, batches wait until CommitNext().
  explicit MemStore(bool manual = false) : manual_(manual) {}
  // Begins with the rows of another: a restart on what was durable.
  MemStore(Rows rows, bool manual) : manual_(manual), rows_(std::move(rows)) {}

  absl::Status Load(Noun noun, RowVisitor visit) override;
  void Commit(Batch batch, Done done) override;
  void Read(StoreRange range, RangeDone done) override;

  // Commits the oldest waiting batch and runs its callback; false where none waits.
  bool CommitNext();
  // From now on every batch that writes fails as a full disk does, or no longer.
  void SetFull(bool full);

  bool is_manual() const { return manual_; }
  Rows rows() const;
  size_t waiting() const;
  uint64_t commits() const;

 private:
  void Apply(Batch batch, Done done);

  const bool manual_;
  mutable Mutex mutex_;
  Rows rows_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::pair<Batch, Done>> waiting_ ABSL_GUARDED_BY(mutex_);
  bool full_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t commits_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace bunker::controller
