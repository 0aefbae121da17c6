// bunkerctl audit verify: takes every row of the chain and computes its hash again.
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/base/audit_entry.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "controller/ctl/commands.h"
#include "controller/ctl/json_read.h"
#include "nlohmann/json.hpp"

namespace bunker::ctl {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxFindings = 100;
constexpr size_t kMaxHeadBytes = 64 << 10;
constexpr char kForgetAction[] = "Audit.Forget";

struct Head {
  uint64_t seq = 0;
  std::string hash;
};

struct Report {
  uint64_t rows = 0;
  uint64_t first_seq = 0;
  Head last;
  std::vector<std::string> findings;
  std::string forgotten_to;  // the last row that retention says it removed

  void Find(std::string text) {
    if (findings.size() < kMaxFindings) findings.push_back(std::move(text));
  }
};

AuditEntry EntryOf(const Json& row) {
  AuditEntry entry;
  entry.seq = UnsignedAt(row, "seq").value_or(0);
  absl::Time at;
  std::string error;
  if (absl::ParseTime(absl::RFC3339_full, TextAt(row, "at"), &at, &error))
    entry.at_unix_ms = absl::ToUnixMillis(at);
  entry.actor = TextAt(row, "actor");
  entry.actor_tenant_id = TextAt(row, "actor_tenant_id");
  entry.key_id = TextAt(row, "key_id");
  entry.tenant_id = TextAt(row, "tenant_id");
  entry.partner_id = TextAt(row, "partner_id");
  entry.action = TextAt(row, "action");
  entry.target = TextAt(row, "target");
  entry.detail = TextAt(row, "detail");
  entry.outcome = TextAt(row, "outcome");
  entry.request_id = TextAt(row, "request_id");
  entry.suppressed = UnsignedAt(row, "suppressed").value_or(0);
  entry.prev_hash = TextAt(row, "prev_hash");
  entry.hash = TextAt(row, "hash");
  return entry;
}

void CheckRow(const Json& json, const std::optional<Head>& exported, Report* report) {
  const AuditEntry row = EntryOf(json);
  const std::string name = "row " + std::to_string(row.seq);
  if (!TrueAt(json, "intact") || AuditHash(row) != row.hash)
    report->Find(name + " was edited: it is not what its hash says");
  if (report->rows == 0) {
    report->first_seq = row.seq;
    if (row.seq == 1 && row.prev_hash != AuditGenesis())
      report->Find(name + " does not begin the chain: rows before it were replaced");
  } else if (row.seq != report->last.seq + 1) {
    report->Find(row.seq > report->last.seq + 1
                     ? "rows " + std::to_string(report->last.seq + 1) + " to " +
                           std::to_string(row.seq - 1) + " are missing: they were deleted"
                     : name + " stands where row " + std::to_string(report->last.seq + 1) +
                           " has to be: it was put in");
  } else if (row.prev_hash != report->last.hash) {
    report->Find(name + " does not follow from row " + std::to_string(report->last.seq) +
                 ": one of them was replaced");
  }
  if (exported && row.seq == exported->seq && row.hash != exported->hash)
    report->Find(name + " is not the one that the exported head names: the chain was rewritten");
  if (row.action == kForgetAction) report->forgotten_to = row.target;
  ++report->rows;
  report->last = {row.seq, row.hash};
}

absl::StatusOr<Head> ReadHead(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxHeadBytes));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_object() && json.contains("data")) json = Json(json["data"]);
  Head head;
  head.seq = json.is_object() ? UnsignedAt(json, "seq").value_or(0) : 0;
  head.hash = json.is_object() ? TextAt(json, "hash") : "";
  if (head.hash.size() != 64) {
    return absl::InvalidArgumentError(path +
                                      " holds no head; save one with: bunkerctl audit head "
                                      "--json > FILE");
  }
  return head;
}

// Everything in order. A page may be short, an empty one is the end.
absl::Status ReadChain(Session& session, const std::optional<Head>& exported, Report* report) {
  for (uint64_t after = 0;;) {
    ASSIGN_OR_RETURN(const Json rows,
                     session.api().Get("/audit?limit=200&after_seq=" + std::to_string(after)));
    if (rows.empty()) return absl::OkStatus();
    for (const Json& row : rows) CheckRow(row, exported, report);
    // Only a row that was put in can hold this up.
    if (report->last.seq <= after) return absl::OkStatus();
    after = report->last.seq;
  }
}

void CheckEnds(const Head& now, const std::optional<Head>& exported, Report* report) {
  const std::string before = std::to_string(report->first_seq - 1);
  if (report->rows > 0 && report->first_seq > 1 && report->forgotten_to != before) {
    report->Find("rows 1 to " + before +
                 " are missing, and no row says that retention removed "
                 "them: they were deleted");
  }
  if (report->last.seq < now.seq)
    report->Find("the controller has written row " + std::to_string(now.seq) +
                 ", but the chain ends at " + std::to_string(report->last.seq));
  if (exported && exported->seq > report->last.seq)
    report->Find("rows " + std::to_string(report->last.seq + 1) + " to " +
                 std::to_string(exported->seq) +
                 " of the exported head are missing: the tail was "
                 "cut off");
}

void PrintReport(Session& session, const Report& report, const std::optional<Head>& exported) {
  if (session.json()) {
    session.PrintJson({{"intact", report.findings.empty()},
                       {"rows", report.rows},
                       {"first_seq", report.first_seq},
                       {"head", {{"seq", report.last.seq}, {"hash", report.last.hash}}},
                       {"compared_with_exported_head", exported.has_value()},
                       {"findings", report.findings}});
    return;
  }
  for (const std::string& finding : report.findings) session.Print("FOUND: " + finding + "\n");
  session.Print(std::to_string(report.rows) + " rows, from " + std::to_string(report.first_seq) +
                " to " + std::to_string(report.last.seq) + ": " +
                (report.findings.empty() ? "intact\n" : "NOT intact\n"));
  if (report.first_seq > 1 && report.findings.empty())
    session.Print("rows before " + std::to_string(report.first_seq) +
                  " were removed by retention, as the chain itself says\n");
  if (exported && exported->seq < report.first_seq) {
    session.Print("the exported head is older than the oldest row kept: nothing to compare\n");
  } else if (!exported) {
    session.Print(
        "Without an exported head, rows cut off at the end can't be seen. Keep the head "
        "elsewhere (bunkerctl audit head --json > FILE) and give it with --head FILE.\n");
  }
}

}  // namespace

int VerifyAudit(Session& session, const std::string& head_file) {
  std::optional<Head> exported;
  if (!head_file.empty()) {
    auto head = ReadHead(head_file);
    if (!head.ok()) return session.Fail(head.status());
    exported = *std::move(head);
  }
  auto now = session.api().Get("/audit/head");
  if (!now.ok()) return session.Fail(now.status());
  if (!TrueAt(*now, "sees_all")) {
    return session.Fail(absl::PermissionDeniedError(
        "the chain runs through all tenants: verifying it needs a key with "
        "scaibunker:admin:platform"));
  }
  Report report;
  const absl::Status read = ReadChain(session, exported, &report);
  if (!read.ok()) return session.Fail(read);
  CheckEnds({UnsignedAt(*now, "seq").value_or(0), TextAt(*now, "hash")}, exported, &report);
  PrintReport(session, report, exported);
  return report.findings.empty() ? kExitOk : kExitFailed;
}

int ShowAuditHead(Session& session) {
  auto head = session.api().Get("/audit/head");
  if (!head.ok()) return session.Fail(head.status());
  if (session.json()) {
    session.PrintJson(*head);
  } else {
    session.Print(TextAt(*head, "seq") + " " + TextAt(*head, "hash") + "\n");
  }
  return kExitOk;
}

}  // namespace bunker::ctl
