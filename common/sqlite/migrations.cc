#include "common/sqlite/migrations.h"

#include <string>

#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::sqlite {
namespace {

absl::StatusOr<int64_t> Pragma(Database& database, const std::string& name) {
  ASSIGN_OR_RETURN(Statement statement, database.Prepare("PRAGMA " + name));
  ASSIGN_OR_RETURN(const bool row, statement.Step());
  if (!row) return ReasonError(absl::StatusCode::kInternal, "INTERNAL", "PRAGMA without a row");
  return statement.Int(0);
}

}  // namespace

absl::Status Migrate(Database& database, int32_t application_id,
                     std::span<const std::string_view> migrations) {
  ASSIGN_OR_RETURN(const int64_t found_id, Pragma(database, "application_id"));
  ASSIGN_OR_RETURN(const int64_t version, Pragma(database, "user_version"));
  if (found_id != application_id && (found_id != 0 || version != 0)) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, "INTERNAL",
                       "the database file belongs to another application: name another path");
  }
  const auto known = static_cast<int64_t>(migrations.size());
  if (version > known) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, "INTERNAL",
                       "the database has schema version " + std::to_string(version) +
                           ", this program knows " + std::to_string(known) +
                           ": run the newer program, schemas don't go back");
  }
  for (int64_t next = version; next < known; ++next) {
    ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
    RETURN_IF_ERROR(Annotate(
        database.Execute(std::string(migrations[static_cast<size_t>(next)])),
        "migration " + std::to_string(next + 1)));
    RETURN_IF_ERROR(
        database.Execute("PRAGMA application_id=" + std::to_string(application_id) +
                         "; PRAGMA user_version=" + std::to_string(next + 1)));
    RETURN_IF_ERROR(transaction.Commit());
    Log(Severity::kInfo, "sqlite.migrated", {{"version", next + 1}});
  }
  return absl::OkStatus();
}

}  // namespace bunker::sqlite
