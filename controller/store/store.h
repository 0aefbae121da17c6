// Where rows live: one table per noun, keyed by id, the body opaque to the store.
//
// The interface belongs to the engine. Load() runs once, before the first commit. Commit() takes
// batches in order; each is atomic and durable, or not there at all, when its callback runs.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bunker::controller {

enum class Noun {
  kMeta,
  kPartner,
  kTenant,
  kUser,
  kApiKey,
  kJoinToken,
  kWorker,
  kImage,
  kGroup,
  kCacheEntry,
  kBunker,
  kIdempotency,
  kUserGroup,
  kQuotaProfile,
  kQuotaAssignment,
  kRegistryCredential,
  kScanReport,
  kAudit,
  kScanDocument,
  kSnapshot,
  kBridge,
};
inline constexpr Noun kAllNouns[] = {
    Noun::kMeta,       Noun::kPartner,      Noun::kTenant,          Noun::kUser,
    Noun::kApiKey,     Noun::kJoinToken,    Noun::kWorker,          Noun::kImage,
    Noun::kGroup,      Noun::kCacheEntry,   Noun::kBunker,          Noun::kIdempotency,
    Noun::kUserGroup,  Noun::kQuotaProfile, Noun::kQuotaAssignment, Noun::kRegistryCredential,
    Noun::kScanReport, Noun::kAudit,        Noun::kScanDocument,    Noun::kSnapshot,
    Noun::kBridge};

// The table's name: "images", "cache_entries", …
std::string_view TableOf(Noun noun);

struct RowWrite {
  Noun noun;
  std::string id;
  // Makes the body; called once, on the thread that commits. Null: the row is deleted.
  std::function<std::string()> body;
};
using Batch = std::vector<RowWrite>;

struct StoredRow {
  std::string id;
  std::string body;
};
using StoredRows = std::vector<StoredRow>;

inline constexpr size_t kMaxRangeRows = 1000;

// Some rows of a noun, by id.
struct StoreRange {
  Noun noun = Noun::kAudit;
  bool newest_first = false;  // by falling ids
  std::string from;           // exclusive; "" = from the end that comes first
  size_t limit = 100;         // at most kMaxRangeRows
  // Only rows whose body has this tenant_id; "" = any. Indexed for Noun::kAudit.
  std::string tenant_id;
  std::string id;  // this row alone, whatever else is said; "" = any
};

class Store {
 public:
  using Done = absl::AnyInvocable<void(const absl::Status&)>;
  using RowVisitor = absl::FunctionRef<absl::Status(std::string_view id, std::string_view body)>;

  virtual ~Store() = default;

  // Every row of `noun`, by id; stops at the visitor's first error. Blocking; before any commit.
  virtual absl::Status Load(Noun noun, RowVisitor visit) = 0;

  // Writes `batch` as one transaction and then calls `done`, on a thread of the store's choosing:
  // OK once it is durable; kResourceExhausted with DISK_FULL where there is no room, and then
  // nothing of it is there. Any other failure ends the process: what is on disk is unknown.
  // Several may wait; they are done in order.
  virtual void Commit(Batch batch, Done done) = 0;

  // Reads a range of what is durable; `done` runs on a thread of the store's choosing, which is to
  // be left soon. For rows that nobody holds in memory. Thread-safe; after the last Load().
  using RangeDone = absl::AnyInvocable<void(absl::StatusOr<StoredRows>)>;
  virtual void Read(StoreRange range, RangeDone done) = 0;
};

// Read() and wait. Never on a loop.
absl::StatusOr<StoredRows> ReadAndWait(Store& store, StoreRange range);

// Commit() and wait. For start-up and tests; never on a loop.
absl::Status CommitAndWait(Store& store, Batch batch);

}  // namespace bunker::controller
