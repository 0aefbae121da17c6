#include "common/sqlite/commit_writer.h"

#include <future>
#include <memory>
#include <string>
#include <vector>

#include "common/base/reason.h"
#include "gtest/gtest.h"
#include "tests/unit/common_sqlite/temp_dir.h"

namespace bunker::sqlite {
namespace {

Database OpenTable(const std::string& path) {
  Database::Options options;
  options.exclusive = true;
  Database database = *Database::Open(path, options);
  EXPECT_TRUE(
      database.Execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, body TEXT)").ok());
  return database;
}

CommitWriter::Job Insert(int64_t id, size_t size = 10) {
  return [id, size](Database& database) -> absl::Status {
    auto statement = database.Prepare("INSERT INTO t (id, body) VALUES (?1, ?2)");
    if (!statement.ok()) return statement.status();
    absl::Status status = statement->BindInt(1, id);
    if (status.ok()) status = statement->BindText(2, std::string(size, 'x'));
    return status.ok() ? statement->Run() : status;
  };
}

int64_t Count(Database& database) {
  Statement statement = *database.Prepare("SELECT count(*) FROM t");
  EXPECT_TRUE(*statement.Step());
  return statement.Int(0);
}

TEST(CommitWriter, GroupsWhatWaitsAndAnswersInOrder) {
  TempDir dir;
  constexpr int kJobs = 500;
  std::vector<int> order;
  {
    CommitWriter writer(OpenTable(dir.File("a.db")), {});
    // The first job holds the thread until all the others are waiting.
    std::promise<void> go;
    std::shared_future<void> gate = go.get_future().share();
    writer.Submit([gate](Database&) {
      gate.wait();
      return absl::OkStatus();
    }, [](const absl::Status& status) { EXPECT_TRUE(status.ok()); });
    std::promise<void> last;
    for (int i = 0; i < kJobs; ++i) {
      writer.Submit(Insert(i), [&, i](const absl::Status& status) {
        EXPECT_TRUE(status.ok()) << status;
        order.push_back(i);
        if (i == kJobs - 1) last.set_value();
      });
    }
    go.set_value();
    last.get_future().wait();
    EXPECT_LE(writer.commits(), 2u);
    EXPECT_EQ(writer.jobs(), static_cast<uint64_t>(kJobs) + 1);
  }
  ASSERT_EQ(order.size(), static_cast<size_t>(kJobs));
  for (int i = 0; i < kJobs; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
  Database database = OpenTable(dir.File("a.db"));
  EXPECT_EQ(Count(database), kJobs);
}

TEST(CommitWriter, AFullDiskRefusesWhatDoesNotFitAndGoesOn) {
  TempDir dir;
  std::vector<std::string> answers;
  {
    Database database = OpenTable(dir.File("a.db"));
    ASSERT_TRUE(database.Execute("PRAGMA max_page_count=20").ok());
    CommitWriter writer(std::move(database), {});
    std::promise<void> go;
    std::shared_future<void> gate = go.get_future().share();
    writer.Submit([gate](Database&) {
      gate.wait();
      return absl::OkStatus();
    }, [](const absl::Status&) {});
    std::promise<void> last;
    const auto note = [&](const absl::Status& status) { answers.push_back(ReasonOf(status)); };
    writer.Submit(Insert(1), note);
    writer.Submit(Insert(2, 1 << 20), note);  // shares the transaction, and spoils it
    writer.Submit(Insert(3), [&](const absl::Status& status) {
      note(status);
      last.set_value();
    });
    go.set_value();
    last.get_future().wait();
  }
  EXPECT_EQ(answers, (std::vector<std::string>{"", "DISK_FULL", ""}));
  Database database = OpenTable(dir.File("a.db"));
  EXPECT_EQ(Count(database), 2);
}

TEST(CommitWriter, CheckpointsByItselfAndAtTheEnd) {
  TempDir dir;
  {
    CommitWriter::Options options;
    options.checkpoint_pages = 10;
    CommitWriter writer(OpenTable(dir.File("a.db")), options);
    for (int i = 0; i < 50; ++i) {
      std::promise<void> done;
      writer.Submit(Insert(i, 20'000), [&](const absl::Status& status) {
        EXPECT_TRUE(status.ok()) << status;
        done.set_value();
      });
      done.get_future().wait();
      EXPECT_LT(std::filesystem::file_size(dir.File("a.db-wal")), 400'000u);
    }
  }
  EXPECT_GT(std::filesystem::file_size(dir.File("a.db")), 1'000'000u);
  EXPECT_FALSE(std::filesystem::exists(dir.File("a.db-wal")));
}

TEST(CommitWriterDeathTest, AnyOtherFailureEndsTheProcess) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        TempDir dir;
        CommitWriter writer(OpenTable(dir.File("a.db")), {});
        writer.Submit(Insert(1), [](const absl::Status&) {});
        writer.Submit(Insert(1), [](const absl::Status&) {});
      },
      "store.commit_failed");
}

}  // namespace
}  // namespace bunker::sqlite
