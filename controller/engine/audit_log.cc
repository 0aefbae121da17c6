#include "controller/engine/audit_log.h"

#include <utility>

#include <fmt/format.h>

#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "controller/store/row_codec.h"

namespace bunker::controller {
namespace {

// How far back a readable row is looked for: the last ones may have been damaged.
constexpr size_t kLastRows = 100;

// What a write of the log's is: the row that it adds (null: it removes), and the head before.
struct Step {
  AuditHead head;
  std::shared_ptr<const AuditEntry> row;
};

}  // namespace

std::string AuditRowId(uint64_t seq) {
  return fmt::format("{:020}", seq);
}

AuditLog::AuditLog() : head_{0, AuditGenesis()} {}

absl::Status AuditLog::Load(Store& store) {
  StoreRange range;
  range.noun = Noun::kAudit;
  range.newest_first = true;
  range.limit = kLastRows;
  ASSIGN_OR_RETURN(const StoredRows rows, ReadAndWait(store, range));
  for (const StoredRow& stored : rows) {
    AuditEntry row;
    if (!DecodeRow(stored.body, &row).ok() || AuditRowId(row.seq) != stored.id) {
      Log(Severity::kError, "audit.damaged",
          {{"row", stored.id},
           {"remedy", "run bunkerctl audit verify; somebody edited the store"}});
      continue;
    }
    head_ = {row.seq, row.hash};
    return absl::OkStatus();
  }
  return absl::OkStatus();
}

void AuditLog::Append(Turn& turn, AuditEntry entry) {
  entry.seq = head_.seq + 1;
  entry.at_unix_ms = absl::ToUnixMillis(turn.now());
  entry.prev_hash = head_.hash;
  entry.hash = AuditHash(entry);
  auto step = std::make_shared<Step>();
  step->head = std::exchange(head_, {entry.seq, entry.hash});
  const std::string id = AuditRowId(entry.seq);
  step->row = std::make_shared<const AuditEntry>(std::move(entry));
  turn.NoteWrite(this, id, std::move(step));
}

void AuditLog::Forget(Turn& turn, uint64_t first_seq, uint64_t last_seq) {
  for (uint64_t seq = first_seq; seq <= last_seq && seq < head_.seq; ++seq) {
    auto step = std::make_shared<Step>();
    step->head = head_;
    turn.NoteWrite(this, AuditRowId(seq), std::move(step));
  }
}

void AuditLog::Restore(const std::string&, const std::shared_ptr<const void>& before) {
  head_ = static_cast<const Step*>(before.get())->head;
}

std::shared_ptr<const void> AuditLog::Current(const std::string&) const {
  return nullptr;
}

void AuditLog::Report(const std::string& id, const std::shared_ptr<const void>& before,
                      Batch& batch, ChangeSet&) const {
  const std::shared_ptr<const AuditEntry> row = static_cast<const Step*>(before.get())->row;
  if (row == nullptr) {
    batch.push_back({Noun::kAudit, id, nullptr});
  } else {
    batch.push_back({Noun::kAudit, id, [row] { return EncodeRow(*row); }});
  }
}

}  // namespace bunker::controller
