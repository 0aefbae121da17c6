#include "controller/store/sqlite_store.h"

#include <algorithm>
#include <utility>

#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/sqlite/migrations.h"
#include "controller/store/schema.h"

namespace bunker::controller {
namespace {

// Bodies are encoded on the writer's thread, and once more if the transaction is run again.
absl::Status WriteRow(sqlite::Database& database, const RowWrite& write) {
  std::string sql = write.body ? "INSERT INTO " : "DELETE FROM ";
  sql += TableOf(write.noun);
  sql += write.body ? " (id, body) VALUES (?1, ?2) ON CONFLICT(id) DO UPDATE SET body=excluded.body"
                    : " WHERE id=?1";
  ASSIGN_OR_RETURN(sqlite::Statement * statement, database.PrepareOnce(sql));
  RETURN_IF_ERROR(statement->BindText(1, write.id));
  if (write.body) RETURN_IF_ERROR(statement->BindText(2, write.body()));
  return statement->Run();
}

absl::StatusOr<StoredRows> ReadOne(sqlite::Database& database, const StoreRange& range) {
  ASSIGN_OR_RETURN(sqlite::Statement statement,
                   database.Prepare("SELECT id, body FROM " + std::string(TableOf(range.noun)) +
                                    " WHERE id=?1"));
  RETURN_IF_ERROR(statement.BindText(1, range.id));
  ASSIGN_OR_RETURN(const bool row, statement.Step());
  if (!row) return StoredRows{};
  return StoredRows{{std::string(statement.Text(0)), std::string(statement.Text(1))}};
}

absl::StatusOr<StoredRows> ReadRange(sqlite::Database& database, const StoreRange& range) {
  if (!range.id.empty()) return ReadOne(database, range);
  std::string sql = "SELECT id, body FROM " + std::string(TableOf(range.noun)) + " WHERE ";
  if (!range.from.empty()) sql += range.newest_first ? "id<?1" : "id>?1";
  if (range.from.empty()) sql += "id>=?1";
  // As the index of the audit table has it: a body may be damaged.
  if (!range.tenant_id.empty())
    sql += " AND CASE WHEN json_valid(body) THEN json_extract(body, '$.tenant_id') END=?2";
  sql += range.newest_first ? " ORDER BY id DESC LIMIT ?3" : " ORDER BY id LIMIT ?3";
  ASSIGN_OR_RETURN(sqlite::Statement statement, database.Prepare(sql));
  RETURN_IF_ERROR(statement.BindText(1, range.from));
  if (!range.tenant_id.empty()) RETURN_IF_ERROR(statement.BindText(2, range.tenant_id));
  RETURN_IF_ERROR(
      statement.BindInt(3, static_cast<int64_t>(std::min(range.limit, kMaxRangeRows))));
  StoredRows rows;
  while (true) {
    ASSIGN_OR_RETURN(const bool row, statement.Step());
    if (!row) return rows;
    rows.push_back({std::string(statement.Text(0)), std::string(statement.Text(1))});
  }
}

// The rows that change are all over the file, and each is read before it is written.
constexpr int kCacheKib = 64 << 10;

}  // namespace

absl::StatusOr<std::unique_ptr<SqliteStore>> SqliteStore::Open(const std::string& path,
                                                               const Options& options) {
  sqlite::Database::Options open;
  open.create = !options.must_exist;
  open.exclusive = true;
  open.cache_kib = kCacheKib;
  open.vfs = options.vfs;
  ASSIGN_OR_RETURN(sqlite::Database database, sqlite::Database::Open(path, open));
  RETURN_IF_ERROR(sqlite::Migrate(database, kStoreApplicationId, kStoreMigrations));
  return std::unique_ptr<SqliteStore>(new SqliteStore(std::move(database)));
}

SqliteStore::SqliteStore(sqlite::Database database)
    : database_(std::make_unique<sqlite::Database>(std::move(database))) {}

SqliteStore::~SqliteStore() = default;

absl::Status SqliteStore::Load(Noun noun, RowVisitor visit) {
  BUNKER_CHECK(database_ != nullptr);
  ASSIGN_OR_RETURN(
      sqlite::Statement statement,
      database_->Prepare("SELECT id, body FROM " + std::string(TableOf(noun)) + " ORDER BY id"));
  while (true) {
    ASSIGN_OR_RETURN(const bool row, statement.Step());
    if (!row) return absl::OkStatus();
    RETURN_IF_ERROR(visit(statement.Text(0), statement.Text(1)));
  }
}

sqlite::CommitWriter& SqliteStore::Writer() {
  MutexLock lock(start_mutex_);
  if (writer_ == nullptr) {
    writer_ = std::make_unique<sqlite::CommitWriter>(std::move(*database_),
                                                     sqlite::CommitWriter::Options{});
    database_.reset();
  }
  return *writer_;
}

void SqliteStore::Commit(Batch batch, Done done) {
  Writer().Submit(
      [batch = std::move(batch)](sqlite::Database& database) -> absl::Status {
        for (const RowWrite& write : batch) RETURN_IF_ERROR(WriteRow(database, write));
        return absl::OkStatus();
      },
      std::move(done));
}

void SqliteStore::Read(StoreRange range, RangeDone done) {
  Writer().Read([range = std::move(range), done = std::move(done)](
                    sqlite::Database& database) mutable { done(ReadRange(database, range)); });
}

}  // namespace bunker::controller
