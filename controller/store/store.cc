#include "controller/store/store.h"

#include <future>
#include <utility>

#include "common/base/log.h"

namespace bunker::controller {

std::string_view TableOf(Noun noun) {
  switch (noun) {
    case Noun::kMeta: return "meta";
    case Noun::kPartner: return "partners";
    case Noun::kTenant: return "tenants";
    case Noun::kUser: return "users";
    case Noun::kApiKey: return "api_keys";
    case Noun::kJoinToken: return "join_tokens";
    case Noun::kWorker: return "workers";
    case Noun::kImage: return "images";
    case Noun::kGroup: return "availability_groups";
    case Noun::kCacheEntry: return "cache_entries";
    case Noun::kBunker: return "bunkers";
    case Noun::kIdempotency: return "idempotency_records";
    case Noun::kUserGroup: return "user_groups";
    case Noun::kQuotaProfile: return "quota_profiles";
    case Noun::kQuotaAssignment: return "quota_assignments";
    case Noun::kRegistryCredential: return "registry_credentials";
    case Noun::kScanReport: return "scan_reports";
    case Noun::kAudit: return "audit";
    case Noun::kScanDocument:
      return "scan_documents";
    case Noun::kSnapshot:
      return "snapshots";
    case Noun::kBridge:
      return "bridges";
  }
  CheckFailed("an enum value without a name", __FILE__, __LINE__);
}

absl::StatusOr<StoredRows> ReadAndWait(Store& store, StoreRange range) {
  std::promise<absl::StatusOr<StoredRows>> promise;
  auto result = promise.get_future();
  store.Read(std::move(range), [&promise](absl::StatusOr<StoredRows> rows) {
    promise.set_value(std::move(rows));
  });
  return result.get();
}

absl::Status CommitAndWait(Store& store, Batch batch) {
  std::promise<absl::Status> promise;
  std::future<absl::Status> result = promise.get_future();
  store.Commit(std::move(batch), [&promise](const absl::Status& status) {
    promise.set_value(status);
  });
  return result.get();
}

}  // namespace bunker::controller
