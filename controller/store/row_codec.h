// Rows ↔ the JSON bodies in which the store keeps them.
//
// Fields are named as in the structs; a field that a body lacks gets its default, so that adding
// one needs no migration. Enums are spelled as in the tenant API, times are nanoseconds since 1970.
// Thread-safe: free functions without state.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "common/base/audit_entry.h"
#include "controller/model/account.h"
#include "controller/model/bridge.h"
#include "controller/model/bunker.h"
#include "controller/model/cache_entry.h"
#include "controller/model/group.h"
#include "controller/model/idempotency.h"
#include "controller/model/image.h"
#include "controller/model/quota.h"
#include "controller/model/registry_credential.h"
#include "controller/model/scan_report.h"
#include "controller/model/snapshot.h"
#include "controller/model/worker.h"

namespace bunker::controller {

// A number of the controller's own, such as its boot counter.
struct MetaRow {
  std::string id;
  uint64_t value = 0;
};

std::string EncodeRow(const MetaRow& row);
std::string EncodeRow(const Partner& row);
std::string EncodeRow(const Tenant& row);
std::string EncodeRow(const User& row);
std::string EncodeRow(const UserGroup& row);
std::string EncodeRow(const ApiKey& row);
std::string EncodeRow(const JoinToken& row);
std::string EncodeRow(const Worker& row);
std::string EncodeRow(const Image& row);
std::string EncodeRow(const Group& row);
std::string EncodeRow(const CacheEntry& row);
std::string EncodeRow(const Bunker& row);
std::string EncodeRow(const IdempotencyRecord& row);
std::string EncodeRow(const AuditEntry& row);
std::string EncodeRow(const RegistryCredential& row);
std::string EncodeRow(const Bridge& row);
std::string EncodeRow(const QuotaProfile& row);
std::string EncodeRow(const QuotaAssignment& row);
std::string EncodeRow(const ScanReport& row);
std::string EncodeRow(const Snapshot& row);

// kDataLoss where the body is not what EncodeRow() writes.
absl::Status DecodeRow(std::string_view body, MetaRow* row);
absl::Status DecodeRow(std::string_view body, Partner* row);
absl::Status DecodeRow(std::string_view body, Tenant* row);
absl::Status DecodeRow(std::string_view body, User* row);
absl::Status DecodeRow(std::string_view body, UserGroup* row);
absl::Status DecodeRow(std::string_view body, ApiKey* row);
absl::Status DecodeRow(std::string_view body, JoinToken* row);
absl::Status DecodeRow(std::string_view body, Worker* row);
absl::Status DecodeRow(std::string_view body, Image* row);
absl::Status DecodeRow(std::string_view body, Group* row);
absl::Status DecodeRow(std::string_view body, CacheEntry* row);
absl::Status DecodeRow(std::string_view body, Bunker* row);
absl::Status DecodeRow(std::string_view body, IdempotencyRecord* row);
absl::Status DecodeRow(std::string_view body, AuditEntry* row);
absl::Status DecodeRow(std::string_view body, RegistryCredential* row);
absl::Status DecodeRow(std::string_view body, Bridge* row);
absl::Status DecodeRow(std::string_view body, QuotaProfile* row);
absl::Status DecodeRow(std::string_view body, QuotaAssignment* row);
absl::Status DecodeRow(std::string_view body, ScanReport* row);
absl::Status DecodeRow(std::string_view body, Snapshot* row);

}  // namespace bunker::controller
