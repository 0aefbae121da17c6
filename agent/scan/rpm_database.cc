#include "agent/scan/rpm_database.h"

#include <sqlite3.h>

#include <memory>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "agent/scan/rpm_header.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr size_t kHeaderBytes = 100;
// Bytes of the file's header that say how it is journalled: 2 = write-ahead log, 1 = not.
constexpr size_t kWriteVersion = 18;
constexpr size_t kReadVersion = 19;
constexpr int kStepsBetweenChecks = 1000;
constexpr int kMaxChecks = 200'000;

struct Closer {
  void operator()(sqlite3* database) const { sqlite3_close_v2(database); }
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Database = std::unique_ptr<sqlite3, Closer>;
using Statement = std::unique_ptr<sqlite3_stmt, Closer>;

absl::Status Failed(sqlite3* database) {
  return absl::InvalidArgumentError(
      absl::StrCat("the RPM database can't be read: ", sqlite3_errmsg(database)));
}

void Harden(sqlite3* database) {
  sqlite3_db_config(database, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(database, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(database, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
  sqlite3_db_config(database, SQLITE_DBCONFIG_ENABLE_VIEW, 0, nullptr);
  sqlite3_db_config(database, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, nullptr);
  sqlite3_limit(database, SQLITE_LIMIT_LENGTH, 64 << 20);
  sqlite3_limit(database, SQLITE_LIMIT_SQL_LENGTH, 64 << 10);
  sqlite3_limit(database, SQLITE_LIMIT_EXPR_DEPTH, 20);
  sqlite3_limit(database, SQLITE_LIMIT_COLUMN, 100);
  sqlite3_limit(database, SQLITE_LIMIT_VDBE_OP, 25'000);
  sqlite3_limit(database, SQLITE_LIMIT_ATTACHED, 0);
  sqlite3_limit(database, SQLITE_LIMIT_TRIGGER_DEPTH, 1);
  sqlite3_exec(database, "PRAGMA cell_size_check=ON", nullptr, nullptr, nullptr);
}

int CountDown(void* checks_left) {
  return --*static_cast<int*>(checks_left) <= 0 ? 1 : 0;
}

absl::StatusOr<Statement> Prepare(sqlite3* database, const char* sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(database, sql, -1, &statement, nullptr) != SQLITE_OK)
    return Failed(database);
  return Statement(statement);
}

// Not a virtual table, nor a view: those would run what the image brought.
absl::Status CheckTable(sqlite3* database) {
  ASSIGN_OR_RETURN(const Statement statement,
                   Prepare(database,
                           "SELECT count(*) FROM sqlite_schema WHERE name = 'Packages' AND "
                           "type = 'table' AND rootpage > 0"));
  if (sqlite3_step(statement.get()) != SQLITE_ROW) return Failed(database);
  if (sqlite3_column_int(statement.get(), 0) == 1) return absl::OkStatus();
  return absl::InvalidArgumentError("the RPM database has no table of packages");
}

absl::Status ReadPackages(sqlite3* database, PackageList* list) {
  ASSIGN_OR_RETURN(const Statement statement, Prepare(database, "SELECT blob FROM Packages"));
  while (true) {
    const int step = sqlite3_step(statement.get());
    if (step == SQLITE_DONE) return absl::OkStatus();
    if (step != SQLITE_ROW) return Failed(database);
    const void* bytes = sqlite3_column_blob(statement.get(), 0);
    const int size = sqlite3_column_bytes(statement.get(), 0);
    const std::string_view blob(static_cast<const char*>(bytes),
                                bytes == nullptr ? 0 : static_cast<size_t>(size));
    RETURN_IF_ERROR(ReadRpmHeader(blob, list));
  }
}

}  // namespace

absl::Status ReadRpmDatabase(std::string content, PackageList* list) {
  if (content.size() < kHeaderBytes || content.compare(0, 15, "SQLite format 3") != 0)
    return absl::InvalidArgumentError("the RPM database is no SQLite file");
  // A database in memory has no log; the caller has seen that the image's is empty.
  content[kWriteVersion] = content[kReadVersion] = 1;
  sqlite3* opened = nullptr;
  const int status = sqlite3_open_v2(":memory:", &opened, SQLITE_OPEN_READWRITE, nullptr);
  const Database database(opened);
  if (status != SQLITE_OK) return absl::InternalError("SQLite can't be opened");
  Harden(database.get());
  const auto size = static_cast<sqlite3_int64>(content.size());
  if (sqlite3_deserialize(database.get(), "main", reinterpret_cast<unsigned char*>(content.data()),
                          size, size, SQLITE_DESERIALIZE_READONLY) != SQLITE_OK) {
    return Failed(database.get());
  }
  int checks_left = kMaxChecks;
  sqlite3_progress_handler(database.get(), kStepsBetweenChecks, &CountDown, &checks_left);
  RETURN_IF_ERROR(CheckTable(database.get()));
  return ReadPackages(database.get(), list);
}

}  // namespace bunker::agent
