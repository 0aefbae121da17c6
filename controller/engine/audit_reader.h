// Pages of the audit chain, read from the store on a thread of their own: nothing of it is kept in
// memory, the loop never waits, and a page costs a bounded number of rows however rare its matches
// are.
//
// Thread-safe. The destructor ends what runs; the store must outlive it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/audit_entry.h"
#include "common/loop/worker_pool.h"
#include "controller/store/store.h"

namespace bunker::controller {

struct AuditQuery {
  // Whose rows; both "" = all.
  std::string tenant_id;
  std::string partner_id;
  // "" = any.
  std::string actor;  // a user's or key's id, or "operator"
  std::string action;
  std::string target;
  std::string outcome;
  std::optional<absl::Time> since;  // inclusive
  std::optional<absl::Time> until;  // exclusive
  bool oldest_first = false;
  std::string from;  // a page's `next`; "" = the first
  size_t limit = 50;
};

struct AuditRecord {
  AuditEntry entry;
  // Whether the stored row is what its hash says, to the byte. Says nothing of its neighbours.
  bool intact = false;
};

struct AuditPage {
  std::vector<AuditRecord> records;  // may be fewer than the limit where `next` is set
  std::string next;                  // where to go on; "" = that was all
};

class AuditReader {
 public:
  explicit AuditReader(Store& store);

  // `done` runs on the reader's thread. UNAVAILABLE where too many wait already.
  using Done = std::function<void(absl::StatusOr<AuditPage>)>;
  void Read(AuditQuery query, Done done);

  static constexpr size_t kMaxScannedRows = 20'000;  // of one page

 private:
  absl::StatusOr<AuditPage> ReadPage(const AuditQuery& query, CancelToken& cancel);

  Store& store_;
  WorkerPool pool_;
};

// A stored row, and whether it is intact. One that can't be read has nothing but its seq.
AuditRecord AuditRecordOf(const StoredRow& stored);

}  // namespace bunker::controller
