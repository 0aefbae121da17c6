// The audit chain: what was done is a row in the same commit as the thing itself.
//
// Rows are not held in memory, only the head of the chain is. Appending and taking back follow the
// turn like every other table's writes.
// Not thread-safe: belongs to the engine.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/base/audit_entry.h"
#include "controller/engine/turn.h"
#include "controller/store/store.h"

namespace bunker::controller {

struct AuditHead {
  uint64_t seq = 0;  // 0: no row yet
  std::string hash;

  bool operator==(const AuditHead&) const = default;
};

class AuditLog final : public UndoableTable {
 public:
  AuditLog();

  // Finds the chain's head. Blocking; before any other call, once the store may be read.
  absl::Status Load(Store& store);

  // Chains `entry` (whose seq, time and hashes are set here) and writes it with the turn.
  void Append(Turn& turn, AuditEntry entry);

  // Rows 1…`last_seq` are past their retention and go. What remains still verifies from its
  // first row on.
  void Forget(Turn& turn, uint64_t first_seq, uint64_t last_seq);

  // May be ahead of the disk: tell it from Turn::AfterCommit alone.
  const AuditHead& head() const { return head_; }

  void Restore(const std::string& id, const std::shared_ptr<const void>& before) override;
  std::shared_ptr<const void> Current(const std::string& id) const override;
  void Report(const std::string& id, const std::shared_ptr<const void>& before, Batch& batch,
              ChangeSet& changes) const override;

 private:
  AuditHead head_;
};

// The store's key of a row: its seq, so that keys sort as the rows do.
std::string AuditRowId(uint64_t seq);

}  // namespace bunker::controller
