#include "controller/engine/audit_reader.h"

#include <memory>
#include <utility>

#include "absl/strings/numbers.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/engine/audit_log.h"
#include "controller/store/row_codec.h"

namespace bunker::controller {
namespace {

constexpr size_t kSliceRows = 250;  // between two commits
constexpr size_t kMaxQueued = 16;

bool Matches(const AuditQuery& query, const AuditEntry& row) {
  const auto is = [](const std::string& wanted, const std::string& have) {
    return wanted.empty() || wanted == have;
  };
  if (!is(query.tenant_id, row.tenant_id) || !is(query.partner_id, row.partner_id)) return false;
  if (!is(query.actor, row.actor) && query.actor != row.key_id) return false;
  if (!is(query.action, row.action) || !is(query.target, row.target)) return false;
  if (!is(query.outcome, row.outcome)) return false;
  const absl::Time at = absl::FromUnixMillis(row.at_unix_ms);
  return (!query.since || at >= *query.since) && (!query.until || at < *query.until);
}

}  // namespace

AuditRecord AuditRecordOf(const StoredRow& stored) {
  AuditRecord record;
  if (!DecodeRow(stored.body, &record.entry).ok()) {
    record.entry = AuditEntry();
    if (!absl::SimpleAtoi(stored.id, &record.entry.seq)) record.entry.seq = 0;
    return record;
  }
  record.intact = AuditRowId(record.entry.seq) == stored.id &&
                  AuditHash(record.entry) == record.entry.hash &&
                  EncodeRow(record.entry) == stored.body;
  return record;
}

AuditReader::AuditReader(Store& store) : store_(store), pool_("audit-read", 1, kMaxQueued) {}

void AuditReader::Read(AuditQuery query, Done done) {
  auto shared = std::make_shared<Done>(std::move(done));
  const auto submitted =
      pool_.Submit([this, query = std::move(query), shared](CancelToken& cancel) {
        (*shared)(ReadPage(query, cancel));
      });
  if (submitted.ok()) return;
  (*shared)(ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                        "too many are reading the audit rows: try again in a moment"));
}

absl::StatusOr<AuditPage> AuditReader::ReadPage(const AuditQuery& query, CancelToken& cancel) {
  AuditPage page;
  StoreRange range;
  range.noun = Noun::kAudit;
  range.newest_first = !query.oldest_first;
  range.from = query.from;
  range.limit = kSliceRows;
  range.tenant_id = query.tenant_id;
  for (size_t scanned = 0;; scanned += kSliceRows) {
    if (cancel.cancelled() || scanned >= kMaxScannedRows) {
      page.next = range.from;
      return page;
    }
    ASSIGN_OR_RETURN(const StoredRows rows, ReadAndWait(store_, range));
    for (const StoredRow& stored : rows) {
      AuditRecord record = AuditRecordOf(stored);
      // What can't be read is shown to those alone who see everything.
      const bool all = query.tenant_id.empty() && query.partner_id.empty();
      const bool matches =
          record.entry.hash.empty()
              ? all && query.actor.empty() && query.action.empty() && query.target.empty()
              : Matches(query, record.entry);
      if (matches && page.records.size() == query.limit) {
        page.next = range.from;
        return page;
      }
      range.from = stored.id;
      if (matches) page.records.push_back(std::move(record));
    }
    if (rows.size() < kSliceRows) return page;
  }
}

}  // namespace bunker::controller
