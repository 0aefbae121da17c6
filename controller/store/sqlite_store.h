// The store in one SQLite file, that one process owns.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/sqlite/commit_writer.h"
#include "common/sqlite/database.h"
#include "controller/store/store.h"

namespace bunker::controller {

// Load() on the opening thread, before the first Commit(); Commit() thread-safe.
class SqliteStore final : public Store {
 public:
  struct Options {
    // Fail instead of making a new database.
    bool must_exist = false;
    std::string vfs;  // for fault injection
  };

  // Takes the file for this process alone (kFailedPrecondition, RESOURCE_IN_USE where another has
  // it) and brings its schema up to date.
  static absl::StatusOr<std::unique_ptr<SqliteStore>> Open(const std::string& path,
                                                           const Options& options);
  // Commits what waits and closes.
  ~SqliteStore() override;

  absl::Status Load(Noun noun, RowVisitor visit) override;
  void Commit(Batch batch, Done done) override;
  // Between two commits, on the one connection there is: see CommitWriter::Read().
  void Read(StoreRange range, RangeDone done) override;

  // fsyncs of commits so far, for metrics.
  uint64_t commits() const { return writer_ == nullptr ? 0 : writer_->commits(); }

 private:
  explicit SqliteStore(sqlite::Database database);
  sqlite::CommitWriter& Writer();

  // Holds the connection until the first commit hands it to the writer's thread.
  std::unique_ptr<sqlite::Database> database_;
  Mutex start_mutex_;
  std::unique_ptr<sqlite::CommitWriter> writer_;
};

}  // namespace bunker::controller
