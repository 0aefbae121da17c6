// A thin owner of an SQLite connection, its statements and transactions.
//
// Not thread-safe: one connection, one thread at a time. Statements must go before their database.
// Errors: SQLITE_FULL (and ENOSPC/EDQUOT beneath an I/O error) is kResourceExhausted with
// DISK_FULL; a lock held elsewhere is kUnavailable; everything else kInternal. Messages name the
// operation and SQLite's own text; they hold no row content.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct sqlite3;
struct sqlite3_stmt;

namespace bunker::sqlite {

class Database;

// A prepared statement. Bind, then Step() until it says false, then Reset() to use it again.
class Statement {
 public:
  Statement(Statement&&) = default;
  Statement& operator=(Statement&&) = default;

  // `index` counts from 1. The text is copied.
  absl::Status BindText(int index, std::string_view text);
  absl::Status BindBlob(int index, std::string_view bytes);
  absl::Status BindInt(int index, int64_t value);

  // True: a row is there. False: done.
  absl::StatusOr<bool> Step();
  // Runs to the end, and resets. For statements without rows.
  absl::Status Run();
  void Reset();

  // Of the row; columns count from 0. The view is valid until the next Step() or Reset().
  std::string_view Text(int column) const;
  int64_t Int(int column) const;

 private:
  friend class Database;
  struct Finalizer {
    void operator()(sqlite3_stmt*) const;
  };
  Statement(sqlite3* database, sqlite3_stmt* statement)
      : database_(database), statement_(statement) {}

  sqlite3* database_;
  std::unique_ptr<sqlite3_stmt, Finalizer> statement_;
};

class Database {
 public:
  struct Options {
    bool create = true;
    // Take and keep the exclusive lock of the file: a second process is refused with a clear
    // message. Reads through other connections are then impossible as well.
    bool exclusive = false;
    // Of pages kept in memory, in KiB; 0: SQLite's default of 2,000. What is not kept is read again
    // from the file for every change.
    int cache_kib = 0;
    // A VFS registered with SQLite, for fault injection; empty: the default.
    std::string vfs;
  };

  // WAL, synchronous=FULL, foreign keys on, no automatic checkpoint: Checkpoint() is the
  // owner's. A new file gets mode 0600. kFailedPrecondition where another process has it.
  static absl::StatusOr<Database> Open(const std::string& path, const Options& options);
  Database(Database&&) = default;
  Database& operator=(Database&&) = default;

  absl::StatusOr<Statement> Prepare(std::string_view sql);
  // The same statement for every call with the same text, reset and without bindings: for a few
  // texts that are used again and again. Valid as long as the database.
  absl::StatusOr<Statement*> PrepareOnce(const std::string& sql);
  // One or more statements without rows.
  absl::Status Execute(const std::string& sql);

  // Copies the WAL into the database and truncates it. An error loses nothing.
  absl::Status Checkpoint();
  // Pages of the WAL as of the last commit.
  int64_t wal_pages() const { return *wal_pages_; }

  // Whether a transaction is open. SQLite ends one by itself on some errors.
  bool in_transaction() const;
  int64_t user_version();

  sqlite3* handle() { return database_.get(); }

 private:
  struct Closer {
    void operator()(sqlite3*) const;
  };
  explicit Database(sqlite3* database) : database_(database) {}

  std::unique_ptr<int64_t> wal_pages_ = std::make_unique<int64_t>(0);
  std::unique_ptr<sqlite3, Closer> database_;
  std::map<std::string, Statement> kept_;  // end before the connection
};

// BEGIN IMMEDIATE … COMMIT; rolls back when it goes out of scope uncommitted.
class Transaction {
 public:
  // `database` must outlive it.
  static absl::StatusOr<Transaction> Begin(Database& database);
  Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();

  // On an error the transaction has been rolled back.
  absl::Status Commit();

 private:
  explicit Transaction(Database* database) : database_(database) {}
  Database* database_;
};

// The status for an SQLite result code on `database` (may be null).
absl::Status SqliteError(sqlite3* database, int code, std::string_view what);

}  // namespace bunker::sqlite
