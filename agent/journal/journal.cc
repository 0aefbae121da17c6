#include "agent/journal/journal.h"

#include <string_view>
#include <utility>

#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/sqlite/database.h"
#include "common/sqlite/migrations.h"

namespace bunker::agent {
namespace {

constexpr int32_t kApplicationId = 0x424e4b41;  // "BNKA"
constexpr int64_t kCheckpointPages = 1000;

constexpr std::string_view kMigrations[] = {
    "CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE assignment (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE image (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE vm (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;"};

std::string VmKey(const std::string& bunker_id, uint32_t incarnation) {
  return bunker_id + "." + std::to_string(incarnation);
}

class SqliteJournal final : public Journal {
 public:
  explicit SqliteJournal(sqlite::Database database) : database_(std::move(database)) {}

  absl::Status Start() {
    MutexLock lock(mutex_);
    RETURN_IF_ERROR(sqlite::Migrate(database_, kApplicationId, kMigrations));
    RETURN_IF_ERROR(Write([&]() -> absl::Status {
      return database_.Execute(
          "INSERT INTO counter VALUES ('boot', 1) "
          "ON CONFLICT (name) DO UPDATE SET value = value + 1");
    }));
    ASSIGN_OR_RETURN(sqlite::Statement read,
                     database_.Prepare("SELECT value FROM counter WHERE name = 'boot'"));
    ASSIGN_OR_RETURN(const bool found, read.Step());
    if (!found) return absl::InternalError("the journal lost its boot counter");
    boot_counter_ = static_cast<uint64_t>(read.Int(0));
    return absl::OkStatus();
  }

  uint64_t boot_counter() const override { return boot_counter_; }

  absl::StatusOr<std::vector<link::v1::Assignment>> Assignments() override {
    return ReadAll<link::v1::Assignment>("SELECT body FROM assignment ORDER BY name");
  }

  absl::Status ApplyAssignments(const std::vector<link::v1::Assignment>& rows,
                                const std::vector<std::string>& removed) override {
    MutexLock lock(mutex_);
    return Write([&]() -> absl::Status {
      for (const link::v1::Assignment& row : rows)
        RETURN_IF_ERROR(Put("INSERT OR REPLACE INTO assignment VALUES (?, ?)", row.name(), row));
      for (const std::string& name : removed)
        RETURN_IF_ERROR(Delete("DELETE FROM assignment WHERE name = ?", name));
      return absl::OkStatus();
    });
  }

  absl::StatusOr<std::vector<link::v1::ImageObservation>> Images() override {
    return ReadAll<link::v1::ImageObservation>("SELECT body FROM image ORDER BY id");
  }

  absl::Status PutImage(const link::v1::ImageObservation& image) override {
    MutexLock lock(mutex_);
    return Write(
        [&] { return Put("INSERT OR REPLACE INTO image VALUES (?, ?)", image.image_id(), image); });
  }

  absl::Status RemoveImage(const std::string& image_id) override {
    MutexLock lock(mutex_);
    return Write([&] { return Delete("DELETE FROM image WHERE id = ?", image_id); });
  }

  absl::StatusOr<std::vector<v1::VmRow>> Vms() override {
    return ReadAll<v1::VmRow>("SELECT body FROM vm ORDER BY id");
  }

  absl::Status PutVm(const v1::VmRow& vm) override {
    MutexLock lock(mutex_);
    const std::string key = VmKey(vm.wanted().bunker_id(), vm.wanted().incarnation());
    return Write([&] { return Put("INSERT OR REPLACE INTO vm VALUES (?, ?)", key, vm); });
  }

  absl::Status RemoveVm(const std::string& bunker_id, uint32_t incarnation) override {
    MutexLock lock(mutex_);
    return Write(
        [&] { return Delete("DELETE FROM vm WHERE id = ?", VmKey(bunker_id, incarnation)); });
  }

  absl::Status RenameVm(const std::string& old_id, const v1::VmRow& vm) override {
    MutexLock lock(mutex_);
    const std::string key = VmKey(vm.wanted().bunker_id(), vm.wanted().incarnation());
    return Write([&]() -> absl::Status {
      RETURN_IF_ERROR(Delete("DELETE FROM vm WHERE id = ?", VmKey(old_id, 1)));
      return Put("INSERT OR REPLACE INTO vm VALUES (?, ?)", key, vm);
    });
  }

 private:
  template <typename Body>
  absl::Status Write(Body body) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    ASSIGN_OR_RETURN(sqlite::Transaction transaction, sqlite::Transaction::Begin(database_));
    RETURN_IF_ERROR(body());
    RETURN_IF_ERROR(Annotate(transaction.Commit(), "writing the agent's journal"));
    // This is the only connection, so that it may checkpoint between two transactions.
    // The row is durable whatever becomes of the checkpoint: a later one copies it.
    if (database_.wal_pages() > kCheckpointPages) {
      if (const absl::Status copied = database_.Checkpoint(); !copied.ok())
        Log(Severity::kWarning, "journal.checkpoint_failed",
            {{"error", std::string(copied.message())}});
    }
    return absl::OkStatus();
  }

  template <typename Message>
  absl::Status Put(std::string_view sql, const std::string& key, const Message& row)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    ASSIGN_OR_RETURN(sqlite::Statement put, database_.Prepare(sql));
    RETURN_IF_ERROR(put.BindText(1, key));
    RETURN_IF_ERROR(put.BindBlob(2, row.SerializeAsString()));
    return put.Run();
  }

  absl::Status Delete(std::string_view sql, const std::string& key)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    ASSIGN_OR_RETURN(sqlite::Statement remove, database_.Prepare(sql));
    RETURN_IF_ERROR(remove.BindText(1, key));
    return remove.Run();
  }

  template <typename Message>
  absl::StatusOr<std::vector<Message>> ReadAll(std::string_view sql) {
    MutexLock lock(mutex_);
    ASSIGN_OR_RETURN(sqlite::Statement read, database_.Prepare(sql));
    std::vector<Message> rows;
    for (;;) {
      ASSIGN_OR_RETURN(const bool found, read.Step());
      if (!found) return rows;
      const std::string_view body = read.Text(0);
      Message row;
      if (!row.ParseFromArray(body.data(), static_cast<int>(body.size())))
        return absl::DataLossError("the agent's journal holds a row that does not parse");
      rows.push_back(std::move(row));
    }
  }

  Mutex mutex_;
  sqlite::Database database_ ABSL_GUARDED_BY(mutex_);
  uint64_t boot_counter_ = 0;  // constant after Start()
};

}  // namespace

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(const std::string& path) {
  sqlite::Database::Options options;
  options.exclusive = true;
  auto database = sqlite::Database::Open(path, options);
  if (!database.ok()) return Annotate(database.status(), "opening the agent's journal");
  auto journal = std::make_unique<SqliteJournal>(*std::move(database));
  RETURN_IF_ERROR(Annotate(journal->Start(), "opening the agent's journal " + path));
  return journal;
}

}  // namespace bunker::agent
