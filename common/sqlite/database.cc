#include "common/sqlite/database.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"

namespace bunker::sqlite {
namespace {

constexpr int kBusyTimeoutMs = 2000;

bool NoRoom(sqlite3* database, int code) {
  if ((code & 0xff) == SQLITE_FULL) return true;
  if ((code & 0xff) != SQLITE_IOERR || database == nullptr) return false;
  const int error_number = sqlite3_system_errno(database);
  return error_number == ENOSPC || error_number == EDQUOT;
}

int OnWal(void* pages, sqlite3*, const char*, int count) {
  *static_cast<int64_t*>(pages) = count;
  return SQLITE_OK;
}

// SQLite creates files with the umask's mode; rows hold hashes of credentials.
absl::Status CreatePrivately(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return ErrnoError(errno, "creating " + path);
  return absl::OkStatus();
}

}  // namespace

absl::Status SqliteError(sqlite3* database, int code, std::string_view what) {
  std::string message(what);
  message += ": ";
  message += database != nullptr ? sqlite3_errmsg(database) : sqlite3_errstr(code);
  if (NoRoom(database, code)) {
    return ReasonError(absl::StatusCode::kResourceExhausted, "DISK_FULL",
                       message + ": make room on the file system of the database");
  }
  if ((code & 0xff) == SQLITE_BUSY || (code & 0xff) == SQLITE_LOCKED) {
    return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE", message);
  }
  return ReasonError(absl::StatusCode::kInternal, "INTERNAL", message);
}

void Statement::Finalizer::operator()(sqlite3_stmt* statement) const {
  sqlite3_finalize(statement);
}

absl::Status Statement::BindText(int index, std::string_view text) {
  const int code = sqlite3_bind_text64(statement_.get(), index, text.data(), text.size(),
                                       SQLITE_TRANSIENT, SQLITE_UTF8);
  return code == SQLITE_OK ? absl::OkStatus() : SqliteError(database_, code, "binding text");
}

absl::Status Statement::BindBlob(int index, std::string_view bytes) {
  const int code = sqlite3_bind_blob64(statement_.get(), index, bytes.data(), bytes.size(),
                                       SQLITE_TRANSIENT);
  return code == SQLITE_OK ? absl::OkStatus() : SqliteError(database_, code, "binding a blob");
}

absl::Status Statement::BindInt(int index, int64_t value) {
  const int code = sqlite3_bind_int64(statement_.get(), index, value);
  return code == SQLITE_OK ? absl::OkStatus() : SqliteError(database_, code, "binding a number");
}

absl::StatusOr<bool> Statement::Step() {
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  const absl::Status error = SqliteError(database_, code, "running a statement");
  Reset();
  return error;
}

absl::Status Statement::Run() {
  while (true) {
    ASSIGN_OR_RETURN(const bool row, Step());
    if (row) continue;
    Reset();
    return absl::OkStatus();
  }
}

void Statement::Reset() {
  // Its result repeats the error that Step() has reported.
  sqlite3_reset(statement_.get());
  sqlite3_clear_bindings(statement_.get());
}

std::string_view Statement::Text(int column) const {
  const void* data = sqlite3_column_blob(statement_.get(), column);
  const int size = sqlite3_column_bytes(statement_.get(), column);
  return {static_cast<const char*>(data), static_cast<size_t>(size)};
}

int64_t Statement::Int(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

void Database::Closer::operator()(sqlite3* database) const { sqlite3_close_v2(database); }

absl::StatusOr<Database> Database::Open(const std::string& path, const Options& options) {
  if (options.create && options.vfs.empty()) RETURN_IF_ERROR(CreatePrivately(path));
  sqlite3* handle = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
                    (options.create ? SQLITE_OPEN_CREATE : 0);
  const int code = sqlite3_open_v2(path.c_str(), &handle, flags,
                                   options.vfs.empty() ? nullptr : options.vfs.c_str());
  Database database(handle);  // a failed open has to be closed too
  if (code != SQLITE_OK) return SqliteError(handle, code, "opening " + path);
  sqlite3_busy_timeout(handle, options.exclusive ? 0 : kBusyTimeoutMs);
  absl::Status status = absl::OkStatus();
  if (options.exclusive) status = database.Execute("PRAGMA locking_mode=EXCLUSIVE");
  if (status.ok()) status = database.Execute("PRAGMA journal_mode=WAL");
  // The lock is taken by the first access that needs it; take it now.
  if (status.ok()) status = database.Execute("BEGIN IMMEDIATE; COMMIT");
  if (options.exclusive && absl::IsUnavailable(status)) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, "RESOURCE_IN_USE",
                       "another process has " + path +
                           " open: one controller owns one store; stop the other one first");
  }
  RETURN_IF_ERROR(status);
  RETURN_IF_ERROR(database.Execute(
      "PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA wal_autocheckpoint=0"));
  if (options.cache_kib > 0) {
    RETURN_IF_ERROR(
        database.Execute("PRAGMA cache_size=-" + std::to_string(options.cache_kib)));
  }
  // After wal_autocheckpoint, which uses the same hook.
  sqlite3_wal_hook(handle, OnWal, database.wal_pages_.get());
  return database;
}

absl::StatusOr<Statement> Database::Prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v3(database_.get(), sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (code != SQLITE_OK) return SqliteError(database_.get(), code, "preparing a statement");
  return Statement(database_.get(), statement);
}

absl::StatusOr<Statement*> Database::PrepareOnce(const std::string& sql) {
  const auto it = kept_.find(sql);
  if (it != kept_.end()) {
    it->second.Reset();
    return &it->second;
  }
  ASSIGN_OR_RETURN(Statement statement, Prepare(sql));
  return &kept_.emplace(sql, std::move(statement)).first->second;
}

absl::Status Database::Execute(const std::string& sql) {
  const int code = sqlite3_exec(database_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus()
                           : SqliteError(database_.get(), code, "running a statement");
}

absl::Status Database::Checkpoint() {
  const int code = sqlite3_wal_checkpoint_v2(database_.get(), nullptr, SQLITE_CHECKPOINT_TRUNCATE,
                                             nullptr, nullptr);
  if (code != SQLITE_OK) return SqliteError(database_.get(), code, "checkpointing");
  *wal_pages_ = 0;
  return absl::OkStatus();
}

bool Database::in_transaction() const { return sqlite3_get_autocommit(database_.get()) == 0; }

int64_t Database::user_version() {
  absl::StatusOr<Statement> statement = Prepare("PRAGMA user_version");
  if (!statement.ok()) return -1;
  const absl::StatusOr<bool> row = statement->Step();
  return row.ok() && *row ? statement->Int(0) : -1;
}

absl::StatusOr<Transaction> Transaction::Begin(Database& database) {
  RETURN_IF_ERROR(database.Execute("BEGIN IMMEDIATE"));
  return Transaction(&database);
}

Transaction::~Transaction() {
  if (database_ == nullptr || !database_->in_transaction()) return;
  const absl::Status status = database_->Execute("ROLLBACK");
  if (!status.ok()) Log(Severity::kError, "sqlite.rollback", {{"error", status.ToString()}});
}

absl::Status Transaction::Commit() {
  const absl::Status status = database_->Execute("COMMIT");
  if (status.ok()) {
    database_ = nullptr;
    return status;
  }
  if (database_->in_transaction()) {
    const absl::Status undo = database_->Execute("ROLLBACK");
    if (!undo.ok()) Log(Severity::kError, "sqlite.rollback", {{"error", undo.ToString()}});
  }
  database_ = nullptr;
  return status;
}

}  // namespace bunker::sqlite
