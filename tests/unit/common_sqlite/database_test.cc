#include "common/sqlite/database.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/reason.h"
#include "common/sqlite/migrations.h"
#include "gtest/gtest.h"
#include "tests/unit/common_sqlite/temp_dir.h"

namespace bunker::sqlite {
namespace {

constexpr int32_t kApplication = 77;
constexpr std::string_view kSchema[] = {"CREATE TABLE t (id TEXT PRIMARY KEY, body TEXT)",
                                        "ALTER TABLE t ADD COLUMN extra TEXT"};

int64_t Count(Database& database) {
  Statement statement = *database.Prepare("SELECT count(*) FROM t");
  EXPECT_TRUE(*statement.Step());
  return statement.Int(0);
}

TEST(Database, BindsStepsAndKeepsBytes) {
  TempDir dir;
  Database database = *Database::Open(dir.File("a.db"), {});
  ASSERT_TRUE(Migrate(database, kApplication, kSchema).ok());
  const std::string odd("a\0b\xff'", 5);
  Statement insert = *database.Prepare("INSERT INTO t (id, body) VALUES (?1, ?2)");
  ASSERT_TRUE(insert.BindText(1, "one").ok());
  ASSERT_TRUE(insert.BindText(2, odd).ok());
  ASSERT_TRUE(insert.Run().ok());
  Statement select = *database.Prepare("SELECT body FROM t WHERE id='one'");
  ASSERT_TRUE(*select.Step());
  EXPECT_EQ(select.Text(0), odd);
  EXPECT_FALSE(*select.Step());
  EXPECT_FALSE(database.Prepare("SELECT nonsense FROM t").ok());
  struct stat info {};
  ASSERT_EQ(stat(dir.File("a.db").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0600u);
}

TEST(Database, ATransactionThatIsNotCommittedIsRolledBack) {
  TempDir dir;
  Database database = *Database::Open(dir.File("a.db"), {});
  ASSERT_TRUE(Migrate(database, kApplication, kSchema).ok());
  {
    Transaction transaction = *Transaction::Begin(database);
    ASSERT_TRUE(database.Execute("INSERT INTO t (id) VALUES ('x')").ok());
  }
  EXPECT_EQ(Count(database), 0);
  Transaction transaction = *Transaction::Begin(database);
  ASSERT_TRUE(database.Execute("INSERT INTO t (id) VALUES ('x')").ok());
  ASSERT_TRUE(transaction.Commit().ok());
  EXPECT_EQ(Count(database), 1);
}

TEST(Database, ASecondOwnerIsRefusedAndSaysWhy) {
  TempDir dir;
  Database::Options exclusive;
  exclusive.exclusive = true;
  Database first = *Database::Open(dir.File("a.db"), exclusive);
  // SQLite's locks are per process, so another process has to try.
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto second = Database::Open(dir.File("a.db"), exclusive);
    const bool refused = !second.ok() && ReasonOf(second.status()) == "RESOURCE_IN_USE";
    _exit(refused ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(Migrations, GoForwardFromEveryVersionAndNeverBack) {
  for (size_t from = 0; from <= 2; ++from) {
    TempDir dir;
    {
      Database old = *Database::Open(dir.File("a.db"), {});
      ASSERT_TRUE(Migrate(old, kApplication, {kSchema, from}).ok());
      EXPECT_EQ(old.user_version(), static_cast<int64_t>(from));
    }
    Database database = *Database::Open(dir.File("a.db"), {});
    ASSERT_TRUE(Migrate(database, kApplication, kSchema).ok());
    ASSERT_TRUE(database.Execute("INSERT INTO t (id, extra) VALUES ('a', 'b')").ok());
    EXPECT_EQ(database.user_version(), 2);
    // An older program must not touch it.
    const absl::Status older = Migrate(database, kApplication, {kSchema, 1});
    EXPECT_EQ(older.code(), absl::StatusCode::kFailedPrecondition);
    const absl::Status foreign = Migrate(database, kApplication + 1, kSchema);
    EXPECT_EQ(foreign.code(), absl::StatusCode::kFailedPrecondition);
  }
}

TEST(Migrations, AFailedOneLeavesTheVersionBefore) {
  TempDir dir;
  Database database = *Database::Open(dir.File("a.db"), {});
  constexpr std::string_view kBroken[] = {"CREATE TABLE t (id TEXT)",
                                          "CREATE TABLE u (id TEXT); CREATE TABLE t (id TEXT)"};
  EXPECT_FALSE(Migrate(database, kApplication, kBroken).ok());
  EXPECT_EQ(database.user_version(), 1);
  EXPECT_FALSE(database.Prepare("SELECT * FROM u").ok());
}

}  // namespace
}  // namespace bunker::sqlite
